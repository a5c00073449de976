"""Sends one message of a session, and writes down what became of it."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent.api.handlers.messages import explain_refusal
from agent.engines.catalog import entry_of
from agent.errors import EngineError, NotFound, StoreError, TryLater, WaError
from agent.failpoint import failpoint
from agent.log import about
from agent.wings.messages.out.answer import End
from agent.wings.messages.out.session.about import complete
from agent.wings.messages.out.session.queue import Waiting
from agent.wings.messages.out.states import (
    UNKNOWN,
    UNKNOWN_OUTCOME,
    Judgement,
    State,
    after_ack,
    is_time_lock,
    judge,
    next_try,
)

if TYPE_CHECKING:
    from agent.wings.messages.out.session.sender import SessionSender

log = logging.getLogger(__name__)

MOST_LOOKS = 4
"""Looks for a message whose try may have sent it; then it has failed, and nobody knows."""


async def send_one(sender: "SessionSender", waiting: Waiting) -> None:
    try:
        view = sender.sessions.view(sender.id)
        entry = entry_of(view.instance.engine)
        repeats, looks = entry.repeats, entry.settles and waiting.may_be_out
        message = await sender.store.content(waiting.number)
        if message is None or view.instance.created_wall != waiting.born:
            sender.queue.remove(waiting)
            return
        if not looks:
            await _note_begun(sender, waiting)
    except (StoreError, NotFound) as error:
        sender.refuse(error.code, str(error))
        sender.queue.put_back(waiting, sender.wall())
        return
    failpoint("outbox_begun")
    path = sender.files.folder / waiting.file if waiting.file else None
    try:
        message = await complete(sender.id, message, sender.store, sender.sessions.find)
        found = looks and await _find(sender, waiting, message)
        answer = found or await sender.sessions.send(sender.id, message, path)
    except WaError as error:
        await _failed(sender, waiting, error, view.instance.engine, repeats=repeats)
    except Exception as error:
        log.exception("internal error: it may have sent a message", extra=about(sender.id))
        unsure = TryLater(f"internal error: {type(error).__name__}", code=UNKNOWN_OUTCOME)
        await _failed(sender, waiting, unsure, view.instance.engine, repeats=repeats)
    else:
        failpoint("outbox_sent")
        await _sent(sender, waiting, answer)


async def _note_begun(sender: "SessionSender", waiting: Waiting) -> None:
    waiting.begun_wall = sender.wall()
    await sender.store.change(waiting.number, begun_wall=waiting.begun_wall)


async def _find(
    sender: "SessionSender", waiting: Waiting, message: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """What became of an earlier try; None: it surely was not sent."""
    answer = await sender.sessions.ask_sent(sender.id, message, waiting.begun_wall)
    if answer.get("outcome") == "sent":
        return answer
    waiting.may_be_out = False
    await _note_begun(sender, waiting)
    return None


async def _sent(sender: "SessionSender", waiting: Waiting, answer: Mapping[str, Any]) -> None:
    sender.holds.forgive(well=True)
    id = answer.get("id")
    message_id = id[:200] if isinstance(id, str) else ""
    state = State.SENT
    for word in sender.early.pop(message_id[:64], ()):
        state = after_ack(state, word)
    told = {"message_id": message_id, "answer": dict(answer), "reason": "", "sentence": ""}
    await _end(sender, waiting, state, End(answer), **told)
    failpoint("outbox_noted")


async def _failed(
    sender: "SessionSender", waiting: Waiting, error: WaError, engine: str, *, repeats: bool
) -> None:
    shown = explain_refusal(engine, error) if isinstance(error, EngineError) else error
    tries = waiting.tries + 1
    found = judge(shown.code, str(error), tries)
    told: dict[str, Any] = {"reason": shown.code, "sentence": str(shown), "tries": tries}
    if found is Judgement.UNKNOWN and not repeats and not _looks_again(waiting, engine):
        await _end(sender, waiting, State.FAILED, End(error=shown), **{**told, "reason": UNKNOWN})
        return
    if found is Judgement.UNKNOWN:
        waiting.may_be_out = True
        told["begun_wall"] = waiting.begun_wall = waiting.begun_wall or sender.wall()
    elif waiting.may_be_out and found is Judgement.FINAL:
        # An earlier try may have sent it all the same.
        words = f"an earlier try may have sent it; the last one: {shown}"
        unsure = TryLater(words, code=UNKNOWN_OUTCOME)
        told |= {"reason": UNKNOWN, "sentence": words}
        await _end(sender, waiting, State.FAILED, End(error=unsure), **told)
        return
    elif found is Judgement.FINAL or (waiting.impatient and not waiting.may_be_out):
        # It surely did not go out: its Idempotency-Key may be used again.
        told["repeats"] = ""
        await _end(sender, waiting, State.FAILED, End(error=shown), **told)
        return
    elif not waiting.may_be_out:
        told["begun_wall"] = 0.0
    await _again(sender, waiting, found, str(error), told)


def _looks_again(waiting: Waiting, engine: str) -> bool:
    """The try may have sent it, or the last look did not find it."""
    waiting.looks += waiting.may_be_out
    return entry_of(engine).settles and waiting.looks < MOST_LOOKS


async def _again(
    sender: "SessionSender", waiting: Waiting, found: Judgement, words: str, told: dict[str, Any]
) -> None:
    due = now = sender.wall()
    if found is Judgement.SESSION:
        del told["tries"]
        if is_time_lock(told["reason"], words):
            sender.holds.lock(now)
        sender.refuse(told["reason"], told["sentence"])
    else:
        waiting.tries = told["tries"]
        # A look holds its chat: the next one does not wait for longer because of earlier tries.
        count = waiting.looks + 1 if found is Judgement.UNKNOWN else waiting.tries
        due = now + next_try(count, sender.pace.longest, sender.pace, sender.jitter())
        told["not_before_wall"] = due
    try:
        await sender.store.change(waiting.number, changed_wall=now, **told)
    except StoreError as error:
        log.error("cannot note a try: %s", error, extra=about(sender.id))
    sender.queue.put_back(waiting, due)


async def _end(
    sender: "SessionSender", waiting: Waiting, state: State, end: End, **columns: Any
) -> None:
    sender.impatient.pop(waiting.number, None)
    await sender.ends.write(waiting, state, end, **columns)
