"""Which session an error in a log belongs to, by names and by who reconnects at that moment."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from agent.core.words import InstanceId
from agent.engines.whaticket.keys.store import SessionStore
from agent.engines.whaticket.logs.lines import LogError
from agent.engines.whaticket.rows import Row
from agent.errors import EngineError

_FILE_OF = re.compile(r"(?:session|whatsapp|wpp|baileys)[-_.](.{1,200})")


class NoOwner(StrEnum):
    """Why an error belongs to none of ours."""

    OTHER = "other"
    """To a session that is not ours to watch."""
    UNKNOWN = "unknown"
    """The log does not tell whose it is."""


@dataclass(frozen=True, slots=True)
class Names:
    """Everything that the sessions of one server are called."""

    ours: Mapping[str, InstanceId] = field(default_factory=dict)
    """Server's id, server's name, our own id → our id."""
    others: frozenset[str] = frozenset()
    only: InstanceId | None = None
    """The server has one session, and it is this one."""

    def whose(self, raw: str, stream: str) -> InstanceId | NoOwner:
        """`raw`: the session as the line has it; `stream`: what its file is called."""
        for name in (raw, *_in_file_name(stream)):
            if name in self.ours:
                return self.ours[name]
            if name in self.others:
                return NoOwner.OTHER
        return self.only if self.only is not None else NoOwner.UNKNOWN


def names_of(held: Mapping[InstanceId, tuple[str, str]], rows: Iterable[Row] | None) -> Names:
    """`held`: per instance its name on the server, and the server's id ("" unknown). `rows` None:
    the server's list was never seen."""
    ours: dict[str, InstanceId] = {}
    others: set[str] = set()
    by_name: dict[str, set[str]] = {}
    listed = list(rows or ())
    server_ids = {server_id: id for id, (_, server_id) in held.items() if server_id}
    for row in listed:
        by_name.setdefault(row.name, set()).add(row.id)
    for id, (remote, server_id) in held.items():
        ours |= {name: id for name in (id, remote, server_id) if name}
    for row in listed:
        unique = row.name and len(by_name[row.name]) == 1
        mine = server_ids.get(row.id) or ours.get(row.id)
        if mine is None and unique and not _server_id_of(held, ours.get(row.name)):
            mine = ours.get(row.name)
        if mine is not None:
            ours |= {row.id: mine, **({row.name: mine} if unique else {})}
        else:
            others |= {row.id, *([row.name] if row.name else [])}
    count = len(listed) if rows is not None else len(held)
    only = next(iter(held)) if count == 1 and len(held) == 1 else None
    if only is not None and listed and ours.get(listed[0].id) != only:
        only = None
    return Names(ours, frozenset(others - set(ours)), only)


def _server_id_of(held: Mapping[InstanceId, tuple[str, str]], id: InstanceId | None) -> str:
    """The server's id of one of ours; "" while it is not known."""
    return held[id][1] if id is not None else ""


def _in_file_name(stream: str) -> tuple[str, ...]:
    if not stream:
        return ()
    named = _FILE_OF.fullmatch(stream)
    return (stream, named[1]) if named else (stream,)


_MOMENT = 30.0
"""Seconds around a session's reconnect in which a line without a name belongs to it."""
_MOST_NAMES, _MOST_TIMES = 2000, 50


@dataclass(slots=True)
class Reconnects:
    """Which sessions' connections began or ended, and when; the other sessions' too."""

    _times: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def note(self, whose: InstanceId | NoOwner, name: str, at: float) -> None:
        """`name`: what the log calls it, for a session that is not ours."""
        who = f"{whose}/{name}" if isinstance(whose, NoOwner) else str(whose)
        if len(self._times) >= _MOST_NAMES:
            self._times.clear()
        self._times[who] = (*self._times.get(who, ()), at)[-_MOST_TIMES:]

    def only_at(self, at: float) -> InstanceId | None:
        """The one session that reconnected around then, if it was one and is ours."""
        near = [
            who for who, times in self._times.items() if any(abs(t - at) < _MOMENT for t in times)
        ]
        return InstanceId(near[0]) if len(near) == 1 and "/" not in near[0] else None


@dataclass(slots=True)
class Attribution:
    """The session of an error that names a peer at most: by stored keys, or by a reconnect."""

    store: SessionStore
    names: Callable[[], Names]
    ids: Callable[[], Awaitable[Iterable[str]]]
    """The server's ids of all its sessions."""
    reconnects: Reconnects = field(default_factory=Reconnects)

    async def whose(self, error: LogError, at: float) -> InstanceId | NoOwner:
        """For a line that names no session and stands in no session's file."""
        holders = await self._holders(error) if error.peer else []
        if len(holders) == 1:
            return self._ours(holders[0])
        alone = self.reconnects.only_at(at)
        if alone is not None and (not holders or alone in map(self._ours, holders)):
            return alone
        return NoOwner.UNKNOWN

    async def _holders(self, error: LogError) -> list[str]:
        """The sessions that have, or had, keys with that peer."""
        if not self.store.usable:
            return []
        try:
            return await self.store.holding(
                sorted(await self.ids()), error.address or f"{error.peer}.0"
            )
        except EngineError:
            return []

    def _ours(self, id: str) -> InstanceId | NoOwner:
        return self.names().ours.get(id, NoOwner.OTHER)
