"""Whether this is the state folder that this machine's agent used last, and its database the
newest.

The folder has a mark with a number that grows with each start and stop; the database and, where it
is elsewhere, the cache have it too. A missing mount looks like a first installation: the file that
root writes at each start of the service, the cache's mark and running workers tell the two apart.
"""

import hashlib
import json
import logging
import secrets
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from agent.core.model import Category, InstanceId, JournalEntry
from agent.errors import TryLater, VaultError, WaError
from agent.host.machine.state_folders import used_states
from agent.store.database import Store
from agent.vault.folder import open_root
from agent.vault.identity import scan

log = logging.getLogger(__name__)

MARK = "state-mark.json"
FACT = "state_mark"
DATABASE = "agent.db"
USED = Path("/etc/wa-agent/state-used")
"""wa-agent.service lets root write it at each start; no agent can, and no mount hides it."""
USED_VARIABLE = "WA_STATE_USED"


@dataclass(frozen=True, slots=True)
class StateMark:
    id: str
    generation: int
    """Grows with each start and each orderly stop."""
    path: str = ""
    """Where the folder lay then."""


@dataclass(frozen=True, slots=True)
class StatePlaces:
    state: Path
    sessions: Path
    cache: Path
    used: Path | None = None
    """Where it exists, an agent of this service has used a state folder before."""

    @property
    def cache_apart(self) -> bool:
        """Only a cache elsewhere can tell of a state folder that is away."""
        return not self.cache.absolute().is_relative_to(self.state.absolute())

    @property
    def cache_mark(self) -> str:
        """Named after the state folder: agents with states of their own may share a cache."""
        path = str(self.state.absolute()).encode()
        return f"state-mark-{hashlib.sha256(path).hexdigest()[:16]}.json"


def state_is_missing(places: StatePlaces) -> bool:
    """No state of an earlier agent is here. (A lost database alone is rebuilt from the
    sessions.)"""
    if (places.state / MARK).exists() or (places.state / DATABASE).exists():
        return False
    return not (places.sessions.is_dir() and scan(places.sessions))


def was_used(places: StatePlaces) -> bool:
    """Whether root's mark is there; False where that cannot be seen."""
    try:
        return places.used is not None and places.used.exists()
    except OSError:
        return False


def used_mark(environment: Mapping[str, str], installed: bool) -> Path | None:
    """The place of root's mark: the service names it, and an installed agent has it there."""
    named = environment.get(USED_VARIABLE, "")
    if named:
        return Path(named)
    return USED if installed else None


def running_elsewhere(places: StatePlaces) -> list[InstanceId]:
    """Workers without a service manager that run in a state folder which lay here before."""
    here = str(places.state.absolute())
    return [
        id
        for used in used_states()
        if (mark := read_mark(used.seen_at)) is not None and mark.path == here
        for id in used.workers
    ]


def refuse_missing_state(places: StatePlaces, running: Collection[InstanceId]) -> None:
    """TryLater when an earlier agent's state should be here and is not. Writes nothing."""
    evidence = []
    if running:
        evidence.append(f"the workers of {name_some(running)} run")
    marks = []
    copy = places.cache / places.cache_mark
    mark = read_mark(places.cache, places.cache_mark) if places.cache_apart else None
    if mark is not None:
        evidence.append(f"{copy} names the state {mark.id}, which an agent used here before")
        marks.append(str(copy))
    if was_used(places):
        evidence.append(f"{places.used} says that an agent used a state here before")
        marks.append(str(places.used))
    if evidence:
        first = ["stop those workers"] if running else []
        first += [f"remove {' and '.join(marks)}"] if marks else []
        raise TryLater(
            f"cannot start on {places.state}: it is empty, but {' and '.join(evidence)}."
            " Mount or put back the state folder; the workers stay as they are. To begin with an"
            f" empty state all the same, {' and '.join(first)}",
            code="state_missing",
        )


def refuse_foreign_state(
    places: StatePlaces, known: Collection[InstanceId], running: Collection[InstanceId]
) -> None:
    """TryLater when the workers that run belong to another state folder than this one."""
    strangers = sorted(set(running) - set(known))
    if not strangers:
        return
    here = read_mark(places.state)
    last = read_mark(places.cache, places.cache_mark) if places.cache_apart else None
    confirmed = here is not None and last is not None and here.id == last.id
    if confirmed or set(running) & set(known):
        log.error(
            "the workers of %s run without an instance: the agent leaves them alone", strangers
        )
        return
    raise TryLater(
        f"cannot start on {places.state}: the workers of {name_some(strangers)} run, and this state"
        " folder knows none of them: they belong to another state folder. Put that folder"
        " in place, or stop those workers",
        code="state_foreign",
    )


async def go_on(store: Store, places: StatePlaces, *, rebuilt: bool) -> bool:
    """Raise the number everywhere; True when the database is older than its folder's mark says."""
    here = read_mark(places.state)
    stored = _parse(await store.get_fact(FACT))
    older = here is not None and (
        stored is None or stored.id != here.id or stored.generation < here.generation
    )
    if older and not rebuilt:
        assert here is not None
        sentence = (
            f"the database is older than its folder {places.state} (it was written at start"
            f" {stored.generation if stored else 'unknown'}, the folder at {here.generation}):"
            " the agent trusts the session folders where they are newer"
        )
        log.warning("%s", sentence)
        await store.append(JournalEntry("database_older", sentence, Category.SYSTEM))
    newest = max((mark.generation for mark in (here, stored) if mark is not None), default=0)
    id = next((mark.id for mark in (here, stored) if mark is not None), secrets.token_hex(8))
    await _write(store, places, StateMark(id, newest + 1, str(places.state.absolute())))
    return older


async def note_stop(store: Store, places: StatePlaces) -> None:
    """From now on a copy of the database from before this stop is older."""
    mark = read_mark(places.state)
    if mark is not None:
        await _write(store, places, replace(mark, generation=mark.generation + 1))


async def _write(store: Store, places: StatePlaces, mark: StateMark) -> None:
    """The database first: if it is cut off in between, the database is newer, which does no
    harm."""
    text = json.dumps(asdict(mark))
    await store.put_facts({FACT: text})
    marks = [(places.state, MARK)]
    if places.cache_apart:
        with suppress(OSError):  # the warning below names it
            places.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        marks.append((places.cache, places.cache_mark))
    for folder, name in marks:
        try:
            with open_root(folder) as opened:
                opened.write(name, text.encode(), points=False)
        except WaError as error:
            log.warning("cannot mark the state folder: %s", error)


def read_mark(folder: Path, name: str = MARK) -> StateMark | None:
    """None where there is no readable mark."""
    try:
        with open_root(folder) as opened:
            return _parse(opened.content(name).decode("utf-8", "replace"))
    except VaultError:
        return None


def _parse(text: str | None) -> StateMark | None:
    try:
        raw: Any = json.loads(text or "")
        mark = StateMark(raw["id"], raw["generation"], raw.get("path", ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    whole = isinstance(mark.id, str) and mark.id.isalnum() and type(mark.generation) is int
    return mark if whole else None


def name_some(ids: Collection[InstanceId]) -> str:
    some = sorted(ids)[:10]
    return ", ".join(some) + (f" and {len(ids) - 10} more" if len(ids) > 10 else "")
