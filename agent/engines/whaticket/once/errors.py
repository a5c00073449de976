"""Errors in a server's logs since the last run, by session, and the sessions with too many."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.core.findings.crypto import CryptoPolicy, CryptoWindow, judge_crypto, note_error
from agent.core.findings.crypto_patterns import CryptoFinding, Effect, read_line
from agent.core.words import InstanceId
from agent.engines.remote.answers import ServerDown
from agent.engines.whaticket.keys.removed import is_safe_name
from agent.engines.whaticket.keys.store import SessionStore
from agent.engines.whaticket.logs.lines import Found
from agent.engines.whaticket.logs.owner import Names, NoOwner, names_of
from agent.engines.whaticket.logs.stream import Batch
from agent.engines.whaticket.logs.tail import Follower
from agent.engines.whaticket.logs.times import LogClock, zone_of
from agent.engines.whaticket.once.memory import UNNAMED, Errors, Memory
from agent.engines.whaticket.once.options import Options
from agent.engines.whaticket.once.say import Voice
from agent.engines.whaticket.rows import Row
from agent.engines.whaticket.server import WhaticketServer
from agent.engines.whaticket.turns import Turn
from agent.engines.whaticket.whose import Attribution
from agent.errors import ConfigError

REACH = 600.0
"""Seconds before the window in which errors still count: its first ones came before a round."""
_MOST_OF_ONE = 100
_OLD = 3600.0
"""Seconds after which a file that grows no more is forgotten."""


@dataclass(frozen=True, slots=True)
class Due:
    """A session that has too many errors."""

    session: str
    count: int
    peers: tuple[str, ...]
    unnamed: bool
    """Some of its errors name no peer."""


@dataclass(slots=True)
class LogRound:
    """One reading of all logs."""

    options: Options
    memory: Memory
    voice: Voice
    now: float = field(default_factory=time.time)
    found: Counter[tuple[Found, str]] = field(default_factory=Counter)
    turns: list[tuple[Turn, str]] = field(default_factory=list)
    hints: set[str] = field(default_factory=set)
    _positions: dict[str, Any] = field(default_factory=dict)

    def read(self) -> None:
        """ConfigError where a log cannot be read."""
        for path, hint in self._paths():
            self._read(path, hint)
        self.memory.positions = self._positions

    def _paths(self) -> Iterable[tuple[Path, str]]:
        path = self.options.log_path
        before, marked, after = str(path).partition("{id}")
        if not marked:
            yield path, ""
            return
        folder = Path(before + "x").parent
        try:
            every = sorted(folder.iterdir())
        except OSError as error:
            raise ConfigError(f"cannot use LOG_FILE: {folder}: {_why(error)}") from error
        for each in every:
            text = str(each)
            if text.startswith(before) and text.endswith(after) and each.is_file():
                id = text[len(before) : len(text) - len(after)]
                if is_safe_name(id):
                    self.hints.add(id)
                    yield each, id

    def _read(self, path: Path, hint: str) -> None:
        kept = self._kept(path)
        first = not self._met_before()
        follower = Follower(
            "file",
            str(path),
            self.options.backend.log_session,
            kept,
            history=self.options.max_read,
            most_behind=self.options.max_read,
            hint=hint,
            clock_of=lambda file: LogClock(self.now, self._zone(file), 0.0 if first else self.now),
        )
        try:
            more = True
            while more:
                batch = follower.poll(self.now)
                if follower.trouble:
                    raise ConfigError(f"cannot use LOG_FILE: {follower.trouble}")
                self._take(batch, path)
                more = batch.more
            self._take(follower.finish(self.now), path)
            self._positions |= follower.positions()
        finally:
            follower.close()

    def _kept(self, path: Path) -> Mapping[str, Any]:
        """Where this log was read up to, and its old parts that may still grow."""
        names = (f"{path}.", f"{path}-")
        return {
            key: raw
            for key, raw in self.memory.positions.items()
            if (file := str(raw.get("path"))) == str(path)
            or (file.startswith(names) and _is_young(Path(file), self.now))
        }

    def _met_before(self) -> bool:
        """Whether a round before this one read this LOG_FILE."""
        before, _, _ = str(self.options.log_path).partition("{id}")
        files = (str(raw.get("path")) for raw in self.memory.positions.values())
        return any(file.startswith(before) for file in files)

    def _take(self, batch: Batch, path: Path) -> None:
        if batch.passed_over:
            self.voice.warn(
                f"{batch.passed_over} bytes of {path} were not read: more came than MAX_READ"
            )
        self.found.update(batch.found)
        self.turns += batch.turns

    def _zone(self, path: Path) -> float:
        match self.options.log_zone:
            case "auto":
                return zone_of(path, self.now)
            case "utc":
                return 0.0
            case "local":
                return float(time.localtime(self.now).tm_gmtoff)
            case zone:
                digits = zone[1:].replace(":", "")
                seconds = int(digits[:2]) * 3600.0 + int(digits[2:]) * 60.0
                return -seconds if zone[0] == "-" else seconds


@dataclass(slots=True)
class Sessions:
    """Every session of the server, as far as its list and the stored keys tell."""

    server: WhaticketServer
    store: SessionStore
    hints: set[str]
    rows: list[Row] | None = None
    stored: list[str] = field(default_factory=list)

    async def look(self) -> None:
        try:
            self.rows = await self.server.rows.get()
        except ServerDown:
            self.rows = None  # not every server lists them for us; the stored keys name them too
        self.stored = await self.store.ids() if self.store.usable else []

    def names(self) -> Names:
        ids = {row.id for row in self.rows or ()} | self.hints
        ids |= set(self.stored) if self.rows is None else set()
        held = {InstanceId(id): (id, id) for id in sorted(ids)}
        return names_of(held, self.rows)

    async def ids(self) -> list[str]:
        return sorted({row.id for row in self.rows or ()} | set(self.stored) | self.hints)


async def attribute(read: LogRound, sessions: Sessions, memory: Memory) -> None:
    """Everything that was read becomes errors of sessions; the old ones are forgotten."""
    names = sessions.names()
    whose = Attribution(sessions.store, sessions.names, sessions.ids)
    for turn, stream in read.turns:
        owner = names.whose(turn.session, stream)
        whose.reconnects.note(owner, turn.session or stream, turn.at)
    for (found, stream), count in read.found.items():
        owner = names.whose(found.session, stream)
        if owner is NoOwner.UNKNOWN:
            owner = await whose.whose(found, found.at)
        # With every session of the server known, one that is not ours is only one without a name.
        session = found.session if owner is NoOwner.OTHER else str(owner)
        session = UNNAMED if owner is NoOwner.UNKNOWN or not is_safe_name(session) else session
        memory.errors.append(Errors(found.at, session, found.peer, found.text, count))
    since = read.now - read.options.window - REACH
    memory.errors = sorted((e for e in memory.errors if e.at >= since), key=lambda e: e.at)


def over_threshold(errors: Sequence[Errors], options: Options) -> list[Due]:
    """Who had so many errors within one window, by the judgement that the agent makes."""
    policy = CryptoPolicy(window=options.window, errors=options.threshold)
    found = []
    for session in sorted({each.session for each in errors}):
        own = [each for each in errors if each.session == session]
        count = _most_at_once(own, policy)
        if count >= options.threshold:
            peers = tuple(dict.fromkeys(each.peer for each in own if each.peer))
            found.append(Due(session, count, peers, any(not each.peer for each in own)))
    return found


def _most_at_once(errors: Sequence[Errors], policy: CryptoPolicy) -> int:
    window, most = CryptoWindow(), 0
    read = [(each, _finding(each)) for each in errors]
    for each, finding in sorted(read, key=lambda one: (one[0].at, _sums_up(one[1]))):
        for _ in range(min(each.count, _MOST_OF_ONE)):
            window = note_error(window, finding, policy, each.at)
        most = max(most, judge_crypto(window, policy, each.at).errors)
    return most


def _finding(errors: Errors) -> CryptoFinding:
    read = read_line(errors.name) or CryptoFinding(errors.name, Effect.COUNTS)
    return replace(read, peer=errors.peer)


def _sums_up(finding: CryptoFinding) -> bool:
    return finding.effect is Effect.SUMMARY


def _is_young(path: Path, now: float) -> bool:
    try:
        return now - path.stat().st_mtime < _OLD
    except OSError:
        return False


def _why(error: OSError) -> str:
    return (error.strerror or "unknown").lower()
