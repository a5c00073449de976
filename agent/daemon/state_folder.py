"""Is this the state folder that this machine's agent used last, and its database the newest?

The folder has a mark with a number that grows with each start and stop, and the database has it
too. A missing mount looks like a first installation: the file that root writes at each start of the
service and running workers tell the two apart. A copy of a folder has the same mark.
"""

import os
import secrets
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from agent.core.model import Category, InstanceId, JournalEntry
from agent.errors import TryLater
from agent.log import going_on, log
from agent.store.database import Store
from agent.vault.folder import open_root, unless_unusable
from agent.vault.identity import scan

MARK = "state-mark.json"
FACT = "state_mark"
DATABASE = "agent.db"
USED = Path("/etc/wa-agent/state-used")
"""The mark that root writes at each start of wa-agent.service: no agent can write it, and no
mount hides it."""


@dataclass(frozen=True, slots=True)
class StateMark:
    id: str
    generation: int
    """Number that grows with each start and each orderly stop."""


def state_is_missing(state: Path, sessions: Path) -> bool:
    """No state of an earlier agent is here. (A lost database alone is rebuilt from the
    sessions.)"""
    kept = (state / MARK).exists() or (state / DATABASE).exists()
    return not (kept or (sessions.is_dir() and scan(sessions)))


def used_mark(environment: Mapping[str, str], *, installed: bool) -> Path | None:
    """Root's mark, where an agent of this service has used a state folder before. The service
    names its place, and an installed agent has it there."""
    place = environment.get("WA_STATE_USED") or (USED if installed else "")
    return Path(place) if os.path.lexists(place) else None


def refuse_missing_state(state: Path, used: Path | None) -> None:
    """Raise TryLater if an earlier agent's state should be here and is not. Writes nothing."""
    if used is not None:
        why = f"cannot start on {state}: it is empty, but {used} says that an agent used a state"
        why = f"{why} here before. Mount or put back the state folder. To begin with an empty state"
        raise TryLater(f"{why} all the same, remove {used}", code="state_missing")


def refuse_foreign_state(
    state: Path, known: Collection[InstanceId], running: Collection[InstanceId]
) -> None:
    """Raise TryLater if the workers that run belong to another state folder than this one."""
    strangers = sorted(set(running) - set(known))
    if strangers and not set(running) & set(known):
        raise TryLater(
            f"cannot start on {state}: the workers of {', '.join(strangers[:10])} run, and this"
            " state folder knows none of them: they belong to another state folder. Mount or put"
            " back that folder, or stop those workers",
            code="state_foreign",
        )
    if strangers:
        log.error("the workers of %s run without an instance: they are left alone", strangers)


@contextmanager
def only_copy(state: Path) -> Iterator[StateMark]:
    """The mark of the folder, held for as long as the agent runs. TryLater: this machine runs a
    copy of it, and each session would log in a second time."""
    mark = read_mark(state) or StateMark(secrets.token_hex(8), 0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as held:
        try:
            held.bind(f"\0wa-agent/state/{mark.id}")  # the kernel frees it however we end
        except OSError:
            raise TryLater(
                f"cannot start on {state}: another agent of this machine runs on a copy of this"
                " state folder, and each session would log in a second time. To go on here, stop"
                " that one first; for an agent of its own, begin with an empty state folder, and"
                " take single sessions over with `wa-agent export` and `import`",
                code="state_copied",
            ) from None
        yield mark


async def go_on(store: Store, state: Path, mark: StateMark) -> str:
    """Raise the number everywhere; a sentence where the database is older than its folder's mark
    says, also as it was lost; "" = it is the newest."""
    stored = _parse(await store.get_fact(FACT))
    fits = stored and stored.id == mark.id and stored.generation >= mark.generation
    older, sentence = mark.generation > 0 and not fits, "; ".join(store.rebuilt_from)
    if older and not sentence:
        sentence = (
            f"the database is older than its folder {state} (it was written at start"
            f" {stored.generation if stored else 'unknown'}, the folder at {mark.generation}):"
            " the session folders tell what is newer; later API keys and history are lost"
        )
        log.warning("%s", sentence)
        await store.append(JournalEntry("database_older", sentence, Category.SYSTEM))
    newest = max(mark.generation, stored.generation if stored else 0)
    await _write(store, state, replace(mark, generation=newest + 1))
    return sentence if older else ""


async def note_stop(store: Store, state: Path) -> None:
    """Note the stop: a copy of the database from before it is older from now on."""
    if (mark := read_mark(state)) is not None:
        await _write(store, state, replace(mark, generation=mark.generation + 1))


async def _write(store: Store, state: Path, mark: StateMark) -> None:
    """The database first: if it is cut off in between, the database is newer, which does no
    harm."""
    text = msgspec.json.encode(mark).decode()
    await store.put_facts({FACT: text})
    with going_on("cannot mark the state folder"), open_root(state) as opened:
        opened.write(MARK, text.encode(), points=False)


def read_mark(folder: Path) -> StateMark | None:
    """Read the mark; None: there is none, or a damaged one."""
    with unless_unusable(), open_root(folder) as opened:
        return _parse(opened.content(MARK).decode("utf-8", "replace"))
    return None


def _parse(text: str | None) -> StateMark | None:
    with suppress(msgspec.DecodeError, RecursionError):
        mark = msgspec.json.decode(text or "", type=StateMark)
        return mark if mark.id.isalnum() else None
    return None
