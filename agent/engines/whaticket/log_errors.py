"""From log lines to happenings of sessions: which session's they are, and how many are reported."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.core.findings.log_limit import LogLimit
from agent.core.words import Happening, InstanceId
from agent.engines.base import Reporter
from agent.engines.remote.answers import ServerDown
from agent.engines.whaticket.keys.store import SessionStore
from agent.engines.whaticket.logs.lines import LogError
from agent.engines.whaticket.logs.owner import Attribution, Names, NoOwner, names_of
from agent.engines.whaticket.logs.stream import Batch
from agent.engines.whaticket.rows import Row
from agent.engines.whaticket.server import WhaticketServer
from agent.engines.whaticket.session import WhaticketSession

PER_PEER, PER_SESSION, STRETCH = 10, 60, 10.0
"""Errors that are reported, in so many seconds; the agent counts to five in five minutes."""
_MOST_LIMITS = 5000
_MOST_WAITING = 1000
_ANSWER_HOLDS, _UNKNOWN_HOLDS = 60.0, 2.0
_COUNTED_FOR = 3600.0


@dataclass(slots=True)
class ErrorReporter:
    """Errors whose line names no session are looked up by the peer's keys, by one task."""

    server: WhaticketServer
    store: SessionStore
    held: Mapping[InstanceId, WhaticketSession]
    reporters: Mapping[InstanceId, Reporter]
    unattributed: int = 0
    """Errors of the last hour whose session is unknown."""
    hidden: int = 0
    """Those of the last hour that were not told because there were too many of them."""
    _since: float = field(default_factory=time.monotonic)
    _limits: dict[tuple[InstanceId, str | None], LogLimit] = field(default_factory=dict)
    _whose: Attribution = field(init=False)
    _waiting: deque[tuple[LogError, int, float]] = field(default_factory=deque)
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _answers: dict[str, tuple[float, InstanceId | NoOwner]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._whose = Attribution(self.store, self._names, self._ids)

    def take(self, batch: Batch) -> None:
        names, now = self._names(), time.monotonic()
        for turn, stream in batch.turns:
            whose = names.whose(turn.session, stream)
            self._whose.reconnects.note(whose, turn.session or stream, now)
            if not isinstance(whose, NoOwner) and (session := self.held.get(whose)) is not None:
                session.note_turn(turn)
        for (error, stream), count in batch.errors.items():
            whose = names.whose(error.session, stream)
            if not isinstance(whose, NoOwner):
                self._report(whose, error, count)
            elif whose is NoOwner.UNKNOWN:
                self._look_up_later(error, count, now)

    async def run(self) -> None:
        """Look up whose peer it is; ends by being cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._waiting:
                error, count, at = self._waiting.popleft()
                whose = await self._owner(error, at)
                if not isinstance(whose, NoOwner):
                    self._report(whose, error, count)
                elif whose is NoOwner.UNKNOWN:
                    self._count(count)

    def sentences(self) -> list[str]:
        self._forget_old()
        sentences = []
        if self.unattributed:
            sentences.append(
                f"{self.unattributed} crypto errors in its logs of the last hour name no session"
            )
        if self.hidden:
            sentences.append(f"{self.hidden} more errors were too many to report one by one")
        return sentences

    def _look_up_later(self, error: LogError, count: int, at: float) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self._count(count)
            return
        self._waiting.append((error, count, at))
        self._woken.set()

    async def _owner(self, error: LogError, at: float) -> InstanceId | NoOwner:
        if not error.peer:
            return await self._whose.whose(error, at)
        now, peer = time.monotonic(), error.address or error.peer
        asked, answer = self._answers.get(peer, (float("-inf"), NoOwner.UNKNOWN))
        if now - asked < (_UNKNOWN_HOLDS if answer is NoOwner.UNKNOWN else _ANSWER_HOLDS):
            return answer
        answer = await self._whose.whose(error, at)
        if len(self._answers) >= _MOST_LIMITS:
            self._answers.clear()
        self._answers[peer] = (now, answer)
        return answer

    async def _ids(self) -> set[str]:
        ids = {row.id for row in await self._rows() or ()}
        return ids | {session.server_id for session in self.held.values() if session.server_id}

    async def _rows(self) -> list[Row] | None:
        try:
            return await self.server.rows.get(holds=_ANSWER_HOLDS)
        except ServerDown:
            last = self.server.rows.last()
            return last[0] if last is not None else None

    def _names(self) -> Names:
        last = self.server.rows.last()
        held = {id: (session.remote, session.server_id) for id, session in self.held.items()}
        return names_of(held, last[0] if last is not None else None)

    def _report(self, id: InstanceId, error: LogError, count: int) -> None:
        reporter = self.reporters.get(id)
        if reporter is None:
            return
        detail = {"text": error.text, "peer": error.peer, "pattern": error.name}
        for _ in range(min(count, PER_PEER)):
            if self._may(id, error.peer, PER_PEER) and self._may(id, None, PER_SESSION):
                reporter.happened(Happening("crypto_error", dict(detail)))
            else:
                self.hidden += 1
        self.hidden += max(count - PER_PEER, 0)

    def _may(self, id: InstanceId, peer: str | None, most: int) -> bool:
        if len(self._limits) >= _MOST_LIMITS:
            self._limits.clear()
        limit = self._limits.get((id, peer), LogLimit())
        limit, show, _ = limit.note(time.monotonic(), most, STRETCH)
        self._limits[id, peer] = limit
        return show

    def _count(self, count: int) -> None:
        self._forget_old()
        self.unattributed += count

    def _forget_old(self) -> None:
        if time.monotonic() - self._since > _COUNTED_FOR:
            self._since, self.unattributed, self.hidden = time.monotonic(), 0, 0
