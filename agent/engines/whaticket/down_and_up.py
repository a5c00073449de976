"""The steps between "down" and "up again" of a repair on a whaticket-like server.

Files may be touched only while the server has nothing of the session in memory: it would write its
old record back. So it must say that the session is down, twice, before and after. A session that
was taken down is brought up again whatever failed in between.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent.core.words import ConnectionStatus as Status
from agent.engines.remote.answers import ServerDown
from agent.engines.whaticket.keys.store import Plan, SessionStore
from agent.engines.whaticket.rows import Row, claim_of_row, no_such_session
from agent.engines.whaticket.server import WhaticketServer
from agent.engines.whaticket.settings import WhaticketSettings
from agent.errors import EngineError

log = logging.getLogger(__name__)

LOOK_EVERY = 0.25
SETTLE = 0.5
"""Seconds in which a server that still writes would write again."""
AGAIN = ("remote_refused", "backend_down")
"""Error codes after which the same request may succeed a little later."""


@dataclass(frozen=True, slots=True)
class DownAndUp:
    """One session's way down and up; `id` is the server's."""

    server: WhaticketServer
    store: SessionStore
    settings: WhaticketSettings
    id: str
    report: Callable[[str], None] = lambda _step: None
    """Takes each step that was done, in words for people."""
    tries: int = 3
    """Of each request that takes the session down or up."""
    pause: float = 1.0
    """Seconds between two tries; doubles."""
    poll: float = LOOK_EVERY
    went_down: Callable[[], None] = lambda: None
    """Called when the server says that it is down."""

    async def while_down(self, work: Callable[[], Awaitable[None]]) -> None:
        """Down, the work, up again; up also when either fails. The first error is raised."""
        await self.must_have_whole_creds(stored=True)
        try:
            await self.go_down()
            self.report("disconnect: the server says that it is down")
            await work()
        except EngineError:
            try:
                await self.come_up()
            except EngineError as error:
                log.warning("%s", error)
            raise
        await self.come_up()

    async def go_down(self) -> None:
        """Return when the server says twice that nothing of it runs; EngineError otherwise."""
        await self._go_down()
        self.went_down()

    async def _go_down(self) -> None:
        route = self.server.contract.hang_up
        what = f"disconnect {self.id}"
        if route is None:
            if await self._down_twice():
                return
            raise EngineError(
                f"cannot {what}: what this server calls disconnect would end the pairing",
                code="not_supported",
            )
        try:
            await self.again(lambda: self.server.do(what, route, self.id))
        except EngineError as error:
            # Some servers refuse to disconnect a session that is not connected.
            if error.code != "remote_refused" or not await self._down_twice():
                raise
            return
        deadline = time.monotonic() + self.settings.own.disconnect_within
        while not await self._down_twice():
            if time.monotonic() > deadline:
                raise EngineError(
                    f"cannot {what}: it is still not down after"
                    f" {self.settings.own.disconnect_within:g} s",
                    code="still_connected",
                )
            await asyncio.sleep(self.poll)

    async def must_have_whole_creds(self, *, stored: bool = False) -> None:
        """Baileys replaces damaged creds by empty ones: a start would end the pairing. While it
        runs it has good ones in memory and writes them again, so it is left alone. `stored`: those
        of a connected session must be there as well, or the configured place is wrong.
        """
        files = await self.store.look(self.id)
        if files == "damaged":
            raise EngineError(
                f"cannot start {self.id} again: its creds are damaged, and a start would replace"
                " them with empty ones",
                code="session_damaged",
            )
        if stored and files in ("absent", "unpaired") and (await self.look()).connected:
            raise EngineError(
                f"cannot touch the keys of {self.id}: it is connected, but its creds are not where"
                " the settings say; a start would begin a new pairing",
                code="session_missing",
            )

    async def begin(self) -> None:
        """Ask for the start, unless the server has begun by itself: two sockets fight."""
        row = await self.look()
        if claim_of_row(row).status in (Status.DISCONNECTED, Status.RECONNECTING):
            await self.must_have_whole_creds()
            await self.server.do(f"start {self.id}", self.server.contract.start, self.id)

    async def come_up(self) -> None:
        """Return when it is connected; a QR code instead means that the pairing is gone."""
        await self.again(self.begin)
        self.report("start-session: the server takes it up")
        await self.wait("connect", self._is_up)
        self.report("wait: it is connected")

    async def wait(self, what: str, wanted: Callable[[Row], bool]) -> Row:
        deadline = time.monotonic() + self.settings.own.connect_within
        while not wanted(row := await self.look()):
            if time.monotonic() > deadline:
                raise EngineError(
                    f"cannot {what} {self.id}: it is {row.status or 'without a status'} after"
                    f" {self.settings.own.connect_within:g} s",
                    code="not_connected",
                )
            await asyncio.sleep(self.poll)
        return row

    async def look(self) -> Row:
        row = await self.server.state(self.id)
        if row is None:
            raise no_such_session(self.id)
        return row

    async def must_stay_gone(self, plan: Plan) -> None:
        """After a removal: the records are still gone, and the session is still down."""
        await asyncio.sleep(SETTLE)
        if back := await self.store.came_back(self.id, plan):
            raise EngineError(
                f"cannot remove keys of {self.id}: {len(back)} were written again, so something"
                " still runs this session",
                code="written_back",
            )
        if not (await self.look()).down:
            raise EngineError(
                f"cannot be sure of the keys of {self.id}: the server connected it meanwhile",
                code="server_reconnected",
            )

    async def start_or(self, undo: Callable[[], Awaitable[None]]) -> None:
        """Start; where the server surely refused, undo what was done before. Without an answer it
        may have started: putting an old pairing under a running session would mix two of them, so
        nothing is undone.
        """
        try:
            await self.again(self.begin)
        except ServerDown:
            raise
        except EngineError:
            if await self._down_twice():
                await undo()
            raise

    async def again(self, request: Callable[[], Awaitable[object]]) -> None:
        """The request, and again after a pause where the server may have changed its mind."""
        for number in range(1, self.tries + 1):
            try:
                await request()
            except EngineError as error:
                refused = isinstance(error, ServerDown) and error.reason == "refused_key"
                if number == self.tries or refused or error.code not in AGAIN:
                    raise
            else:
                return
            await asyncio.sleep(self.pause * 2.0 ** (number - 1))

    async def _down_twice(self) -> bool:
        if not (await self.look()).down:
            return False
        # Most of these servers connect again by themselves right after a drop.
        await asyncio.sleep(SETTLE)
        return (await self.look()).down

    def _is_up(self, row: Row) -> bool:
        if row.asks:
            raise EngineError(
                f"cannot connect {self.id}: the server asks for a new pairing", code="pairing_lost"
            )
        return row.connected
