"""What an agent does with the messages that the one before it left."""

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Mapping

from agent.api.http.idempotency import PREFIX, read_answer
from agent.core.model import Category, InstanceId, JournalEntry
from agent.daemon.wing_parts import Around
from agent.engines.catalog import entry_of
from agent.errors import StoreError, WaError
from agent.log import about
from agent.store.database import Store
from agent.wings.messages.out.file import OutboxFiles
from agent.wings.messages.out.message import OutMessage
from agent.wings.messages.out.session.ledger import Ledger, Mark
from agent.wings.messages.out.states import UNKNOWN, State
from agent.wings.messages.out.store import OutboxStore

log = logging.getLogger(__name__)

MARK = "outbox.mark"
"""The fact in the agent's database that knows the mark of the outbox's file."""


async def take_over(
    store: OutboxStore, around: Around, files: OutboxFiles, now_wall: float
) -> list[OutMessage]:
    """Those that are to be sent, in their order. Where it fails the store is closed."""
    try:
        await _say_repairs(store, around)
        return await _take_over(store, around, files, now_wall)
    except WaError:
        await store.close()
        raise


async def _say_repairs(store: OutboxStore, around: Around) -> None:
    """What had to be done to open the file, or that it is not the one of before."""
    said = await _compare_mark(around.store, store.ledger)
    for sentence in store.sentences or ((said,) if said else ()):
        log.error("%s", sentence)
        entry = JournalEntry("store_repaired", sentence, Category.SYSTEM, wall=time.time())
        await around.store.note(entry)


async def say_dropped(store: Store, instance: InstanceId, count: int) -> None:
    """Messages that were accepted went with their instance: the log and the history tell it."""
    sentence = f"{count} accepted messages are not sent: their instance was deleted"
    log.warning("%s", sentence, extra=about(instance))
    entry = JournalEntry(
        *("messages_dropped", sentence),
        instance=instance,
        wall=time.time(),
        detail={"count": count},
    )
    try:
        await store.note(entry)
    except StoreError as error:
        log.error("cannot note it: %s", error, extra=about(instance))


def _is_lost(engine: str) -> bool:
    """Whether nobody can tell what became of a try, and another one would be another message."""
    entry = entry_of(engine)
    return not entry.repeats and not entry.settles


async def _take_over(
    store: OutboxStore, around: Around, files: OutboxFiles, now_wall: float
) -> list[OutMessage]:
    answers = await around.store.get_facts(PREFIX)
    views = around.supervisor.views()
    left: list[OutMessage] = []
    unsure: list[int] = []
    gone: Counter[tuple[InstanceId, float]] = Counter()
    for row in await store.waiting():
        view = views.get(row.instance)
        if view is None or view.instance.created_wall != row.born:
            gone[row.instance, view.instance.created_wall if view else 0.0] += 1
        elif answers and row.repeats and await _sent_elsewhere(store, row, answers):
            log.warning(
                "%s was sent by another version of the program", row.id, extra=about(row.instance)
            )
        elif row.begun_wall and _is_lost(view.instance.engine):
            unsure.append(row.number)
        else:
            left.append(row)
    why = "the agent ended while it was sent: check whether it went out"
    told = {"reason": UNKNOWN, "sentence": why, "changed_wall": now_wall}
    await store.end_all(unsure, State.FAILED, **told)
    for (instance, born), count in gone.items():
        await store.forget_instance(instance, born)
        await say_dropped(around.store, instance, count)
    await asyncio.to_thread(files.remove_others, {row.file for row in left})
    return left


async def _sent_elsewhere(store: OutboxStore, row: OutMessage, answers: Mapping[str, str]) -> bool:
    """A version without an outbox ran meanwhile and took the same request: it sent the message, or
    nobody knows."""
    content = await store.content(row.number) or {}
    told = answers.get(PREFIX + str(content.get("key", "")))
    found = None if told is None else read_answer(told)
    if found is None or found.wall < row.accepted_wall or found.born not in ("", str(row.born)):
        return False
    if found.answer is None:
        why = (
            "another version of the program was sending it when it ended: check whether it went out"
        )
        await store.end(
            row.number, State.FAILED, reason=UNKNOWN, sentence=why, changed_wall=found.wall
        )
    else:
        await store.end(
            row.number,
            State.SENT,
            message_id=str(found.answer.get("id", ""))[:200],
            answer=found.answer,
            changed_wall=found.wall,
        )
    return True


async def _compare_mark(store: Store, ledger: Ledger) -> str:
    """What is wrong with the file, as a sentence; "" = nothing."""
    known, mark = _read(await store.get_fact(MARK)), await ledger.open_mark()
    said = _judge(known, mark)
    await store.put_facts(
        {MARK: json.dumps({"id": mark.id, "opened": mark.opened, "at": time.time()})}
    )
    return said


def _judge(known: Mark | None, mark: Mark) -> str:
    if known is None:
        return ""
    if mark.fresh:
        return "outbox.db was removed while no agent ran; messages that waited in it are not sent"
    if mark.id != known.id:
        return (
            "outbox.db is another one than before; messages that waited in the one before are not"
            " sent"
        )
    if mark.opened <= known.opened:
        return (
            "outbox.db is an older copy of itself: messages that it had taken since are not sent,"
            " and those that it shows as waiting may have been sent"
        )
    return ""


def _read(text: str | None) -> Mark | None:
    try:
        raw = json.loads(text or "")
        return Mark(str(raw["id"]), int(raw["opened"]))
    except (ValueError, TypeError, KeyError):
        return None
