"""The sessions of one backend that its worker holds, each with its engine and its reports.

What one of them does wrong is its own: it never ends the worker that speaks for all others.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.clock import boot_now
from agent.core.words import Claim, ConnectionStatus, InstanceId
from agent.engines.base import Backend, RemoteEngine
from agent.errors import WaError
from agent.link.server import LinkServer
from agent.log import about
from agent.worker.reports import Reports

log = logging.getLogger(__name__)

HOLD_AGAIN = 10.0
"""Seconds until a session whose engine broke is held again."""
SAVES_AT_ONCE = 50


@dataclass(slots=True)
class Session:
    engine: RemoteEngine
    reports: Reports
    settings: Mapping[str, Any] = field(repr=False)


class HeldSessions:
    """Follows the agent's `hold` and `release`."""

    def __init__(self, backend: Backend, changed: asyncio.Event) -> None:
        """`changed` is set when a count of them may have to be another."""
        self.sessions: dict[InstanceId, Session] = {}
        self._backend = backend
        self._changed = changed
        self._server: LinkServer | None = None
        self._progressed_at = 0.0

    def attach(self, server: LinkServer) -> None:
        self._server = server
        for session in self.sessions.values():
            session.reports.attach(server)

    def hold_all(self, roster: Mapping[InstanceId, Mapping[str, Any]]) -> None:
        """As far as it goes: what cannot be held is logged, and the agent asks for it again."""
        for id, settings in roster.items():
            try:
                self.hold(id, settings)
            except WaError as error:
                log.error("cannot hold %s: %s", id, error, extra=about(id))
            except Exception:
                log.exception("cannot hold %s: internal error", id, extra=about(id))

    def hold(self, id: InstanceId, settings: Mapping[str, Any]) -> None:
        """Watch it from now on."""
        before = self.sessions.get(id)
        if before is not None:
            if before.settings == settings:
                return
            self.release(id)
        reports = Reports(id, self._changed, lambda error: self._broke(id, reports, error))
        if self._server is not None:
            reports.attach(self._server)
        self.sessions[id] = Session(self._backend.hold(id, settings, reports), reports, settings)
        self._changed.set()

    def release(self, id: InstanceId) -> None:
        session = self.sessions.pop(id, None)
        if session is None:
            return
        self._changed.set()
        self._progressed_at = max(self._progressed_at, session.reports.progressed())
        self._backend.release(id)

    def current(self) -> Mapping[InstanceId, Claim]:
        """The newest claims; a session that was not asked yet has none."""
        return {
            id: session.reports.current()
            for id, session in self.sessions.items()
            if session.reports.said
        }

    def connected(self) -> int:
        up = ConnectionStatus.CONNECTED
        return sum(session.reports.status is up for session in self.sessions.values())

    async def repeat(self, every: float) -> None:
        """Let the agent hear each claim once in so many seconds, by itself or by ours.

        A few at a time, each looked at twice in that time.
        """
        turns = 30
        while True:
            ids = list(self.sessions)
            for turn in range(turns):
                due = boot_now() - every / 2
                for id in ids[turn::turns]:
                    session = self.sessions.get(id)
                    if session and session.reports.said and session.reports.told_at < due:
                        session.reports.repeat()
                await asyncio.sleep(every / 2 / turns)

    # at the end

    def progressed(self) -> float:
        """When a save last went on."""
        times = [session.reports.progressed() for session in self.sessions.values()]
        return max([self._progressed_at, *times])

    async def prepare_stop(self) -> None:
        await self._each("prepare", lambda engine: engine.prepare_stop())

    async def save(self) -> None:
        await self._each("save", lambda engine: engine.save())

    async def close(self) -> None:
        """Release all, then let go of the server. Nothing is done to the sessions there."""
        for id in list(self.sessions):
            self._let_go(id)
        await self._backend.close()

    async def _each(self, what: str, do: Callable[[RemoteEngine], Awaitable[None]]) -> None:
        places = asyncio.Semaphore(SAVES_AT_ONCE)

        async def one(id: InstanceId, engine: RemoteEngine) -> None:
            async with places:
                try:
                    await do(engine)
                except Exception as error:
                    failed.append(id)
                    log.error("cannot %s %s: %s", what, id, error, extra=about(id))

        failed: list[InstanceId] = []
        engines = {id: session.engine for id, session in self.sessions.items()}
        await asyncio.gather(*(one(id, engine) for id, engine in engines.items()))
        if failed:
            raise WaError(f"cannot {what} {len(failed)} of {len(engines)} sessions")

    def _broke(self, id: InstanceId, reports: Reports, error: BaseException) -> None:
        log.error(
            "the engine of %s failed; the worker opens it again: %s",
            id,
            error,
            exc_info=error,
            extra=about(id),
        )
        loop = asyncio.get_running_loop()
        loop.call_later(HOLD_AGAIN, self._hold_again, id, reports)

    def _hold_again(self, id: InstanceId, reports: Reports) -> None:
        session = self.sessions.get(id)
        if session is None or session.reports is not reports:
            return  # released, or held again since
        with_what = session.settings
        self._let_go(id)
        self.hold_all({id: with_what})

    def _let_go(self, id: InstanceId) -> None:
        try:
            self.release(id)
        except Exception:
            log.exception("cannot release %s: internal error", id, extra=about(id))
