"""Errors in a server's logs since the last run, by session, and the sessions with too many."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.core.findings.crypto import judge_crypto
from agent.core.findings.crypto_patterns import CryptoFinding, Effect, read_line
from agent.core.findings.crypto_window import CryptoPolicy, CryptoWindow, note_error
from agent.core.words import InstanceId
from agent.engines.remote.answers import ServerDown
from agent.engines.whaticket.keys.files import cause_of
from agent.engines.whaticket.keys.removed import is_safe_name
from agent.engines.whaticket.keys.store import SessionStore
from agent.engines.whaticket.logs.lines import LogError
from agent.engines.whaticket.logs.owner import Attribution, Names, NoOwner, names_of
from agent.engines.whaticket.logs.stream import Batch
from agent.engines.whaticket.logs.tail import LogTail
from agent.engines.whaticket.logs.times import LogClock, offset_of, zone_of
from agent.engines.whaticket.once.options import Options
from agent.engines.whaticket.once.say import Voice
from agent.engines.whaticket.once.state_file import UNNAMED, Errors, Memory
from agent.engines.whaticket.rows import Row
from agent.engines.whaticket.server import WhaticketServer
from agent.engines.whaticket.turns import Turn
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
class ErrorRound:
    """One reading of all logs."""

    options: Options
    memory: Memory
    voice: Voice
    now: float = field(default_factory=time.time)
    errors: Counter[tuple[LogError, str]] = field(default_factory=Counter)
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
            paths = sorted(folder.iterdir())
        except OSError as error:
            raise ConfigError(f"cannot use LOG_FILE: {folder}: {cause_of(error)}") from error
        for file in paths:
            text = str(file)
            if text.startswith(before) and text.endswith(after) and file.is_file():
                id = text[len(before) : len(text) - len(after)]
                if is_safe_name(id):
                    self.hints.add(id)
                    yield file, id

    def _read(self, path: Path, hint: str) -> None:
        earlier = self._earlier(path)
        first = not self._met_before()
        follower = LogTail(
            "file",
            str(path),
            self.options.backend.log_session,
            earlier,
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

    def _earlier(self, path: Path) -> Mapping[str, Any]:
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
        self.errors.update(batch.errors)
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
                return offset_of(zone.encode())


@dataclass(slots=True)
class Sessions:
    """Every session of the server, as far as its list and the stored keys tell."""

    server: WhaticketServer
    store: SessionStore
    hints: set[str]
    rows: list[Row] | None = None
    stored: list[str] = field(default_factory=list)
    trouble: ServerDown | None = None
    """Why nothing can be had from the server."""

    async def look(self) -> None:
        self.stored = await self.store.ids() if self.store.usable else []
        try:
            self.rows = await self.server.rows.get()
        except ServerDown as down:
            if not await self._keeps_only_its_list(down):
                self.trouble = down

    async def _keeps_only_its_list(self, down: ServerDown) -> bool:
        """Not every server lists its sessions for us. One that knows us answers about one session;
        the stored keys name them."""
        if down.reason == "not_found":
            return True
        some = next(iter(self.stored or sorted(self.hints)), "")
        if down.reason != "refused_key" or not some:
            return False
        try:
            await self.server.state(some)
        except ServerDown:
            return False
        return True

    def names(self) -> Names:
        ids = {row.id for row in self.rows or ()} | self.hints
        ids |= set(self.stored) if self.rows is None else set()
        held = {InstanceId(id): (id, id) for id in sorted(ids)}
        return names_of(held, self.rows)

    async def ids(self) -> list[str]:
        return sorted({row.id for row in self.rows or ()} | set(self.stored) | self.hints)


async def attribute(read: ErrorRound, sessions: Sessions, memory: Memory) -> None:
    """Everything that was read becomes errors of sessions; the old ones are forgotten."""
    names = sessions.names()
    whose = Attribution(sessions.store, sessions.names, sessions.ids)
    for turn, stream in read.turns:
        owner = names.whose(turn.session, stream)
        whose.reconnects.note(owner, turn.session or stream, turn.at)
    for (error, stream), count in read.errors.items():
        owner = names.whose(error.session, stream)
        if owner is NoOwner.UNKNOWN:
            owner = await whose.whose(error, error.at)
        # With every session of the server known, one that is not ours is only one without a name.
        session = error.session if owner is NoOwner.OTHER else str(owner)
        session = UNNAMED if owner is NoOwner.UNKNOWN or not is_safe_name(session) else session
        memory.errors.append(Errors(error.at, session, error.peer, error.text, count))
    since = read.now - read.options.window - REACH
    memory.errors = sorted((e for e in memory.errors if e.at >= since), key=lambda e: e.at)


def over_threshold(errors: Sequence[Errors], options: Options) -> list[Due]:
    """Who had so many errors within one window, by the judgement that the agent makes."""
    policy = CryptoPolicy(window=options.window, errors=options.threshold)
    due = []
    for session in sorted({entry.session for entry in errors}):
        own = [entry for entry in errors if entry.session == session]
        count = _most_at_once(own, policy)
        if count >= options.threshold:
            peers = tuple(dict.fromkeys(entry.peer for entry in own if entry.peer))
            due.append(Due(session, count, peers, not all(entry.peer for entry in own)))
    return due


def _most_at_once(errors: Sequence[Errors], policy: CryptoPolicy) -> int:
    window, most = CryptoWindow(), 0
    read = [(entry.at, _finding(entry), entry.count) for entry in errors]
    for at, finding, count in sorted(
        read, key=lambda row: (row[0], row[1].effect is Effect.SUMMARY)
    ):
        for _ in range(min(count, _MOST_OF_ONE)):
            window = note_error(window, finding, policy, at)
        most = max(most, judge_crypto(window, policy, at).errors)
    return most


def _finding(errors: Errors) -> CryptoFinding:
    read = read_line(errors.name) or CryptoFinding(errors.name, Effect.COUNTS)
    return replace(read, peer=errors.peer)


def _is_young(path: Path, now: float) -> bool:
    try:
        return now - path.stat().st_mtime < _OLD
    except OSError:
        return False
