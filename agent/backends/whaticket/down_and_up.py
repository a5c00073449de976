"""The steps between "down" and "up again" of a repair on a whaticket server.

Keys may be touched only while the server has nothing of the session in memory: it would write its
old record back. So it must say that the session is down, twice, before and after. A session that
was taken down is brought up again whatever failed in between.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from agent.backends.http import ServerDown, cannot
from agent.backends.whaticket.calls import Row, Status, WhaticketCalls, claim_of_row
from agent.backends.whaticket.keys import Record, SessionKeys
from agent.clock import boot_now
from agent.engines.tasks import in_thread
from agent.errors import EngineError
from agent.log import log

DOWN_WITHIN, UP_WITHIN = 30.0, 90.0
"""Seconds until a disconnected session must be down, and a started one connected."""
LOOK_EVERY = 0.25
SETTLE = 0.5
"""Seconds in which a server that still writes would write again."""
TRIES, PAUSE = 3, 1.0
"""Of each request that takes the session down or up; the pause between two of them doubles."""
NOTHING = "nothing_to_remove"
"""The error's code where no record could be taken out: nothing was interrupted."""
_AGAIN = ("remote_refused", "backend_down")


@dataclass(frozen=True, slots=True)
class DownAndUp:
    """One session's way down and up; `id` is the server's."""

    calls: WhaticketCalls
    keys: SessionKeys
    id: str
    report: Callable[[str], None]
    """Takes each step that was done, in words for people."""
    went_down: Callable[[], None]
    """Called before the session is touched."""
    # changes of keys

    async def regenerate(self, peers: Sequence[str], *, damaged: bool = True) -> None:
        """Down, the records of these peers and the damaged ones away, up again: Baileys makes new
        ones with the next message. EngineError `nothing_to_remove`, and no interruption, where it
        would be a mere reconnect."""
        self._must_be_possible("regenerate keys")
        plan = partial(self.keys.plan, self.id, peers, damaged=damaged)
        if not await in_thread(plan):
            about = "no record of these peers is stored" if peers else "no peer is named"
            cause = f"{about}, and no stored record is damaged"
            raise cannot(f"regenerate keys of {self.id}", cause, NOTHING)

        async def work() -> None:
            if records := await in_thread(plan):
                why = "new keys with single peers"
                await in_thread(self.keys.take_out, self.id, records, why)
                await self._must_stay_gone(records)
            keys = sum(record.redis for record in records)
            counts = f"{len(records) - keys} files, {keys} keys in Redis"
            self.report(f"back up and remove: {counts}")

        await self._while_down(work)

    async def start_over(self) -> None:
        """Down, all keys away, then a start. If that was refused, the pairing is put back."""
        await in_thread(self.keys.all, self.id)  # EngineError where one cannot be backed up
        self.went_down()
        await self.go_down()
        why, removal = "the session starts over", None
        try:
            records = await in_thread(self.keys.all, self.id)
            removal = await in_thread(self.keys.take_out, self.id, records, why, whole=True)
            await self._must_stay_gone(records)
        finally:
            try:
                await self._again(self.begin)
            except EngineError as error:
                # Unanswered it may have started: an old pairing under it would mix two.
                refused = not isinstance(error, ServerDown) and await self._down_twice()
                if refused and removal is not None:
                    await in_thread(self.keys.put_back, self.id, removal)
                raise

    async def put_back(self, name: object) -> None:
        """A removal undone, by a person's word. What lies there by now is put aside itself."""
        self._must_be_possible("put keys back")
        removal = await in_thread(self.keys.shelf.find, self.id, name)
        await in_thread(self.keys.in_the_way, self.id, removal)  # as above

        async def work() -> None:
            if records := await in_thread(self.keys.in_the_way, self.id, removal):
                why, whole = f"made way for {removal.name}", removal.whole
                await in_thread(self.keys.take_out, self.id, records, why, whole=whole)
                await self._must_stay_gone(records)
            await in_thread(self.keys.put_back, self.id, removal)

        await self._while_down(work)

    def _must_be_possible(self, what: str) -> None:
        if not self.keys.stores:
            raise cannot(what, "neither auth_folder nor redis_url is set", "not_supported")
        if self.calls.own.hang_up is None:
            cause = "keys change while a session is down, and this server's disconnect"
            raise cannot(what, f"{cause} ends the pairing", "not_supported")

    async def _must_stay_gone(self, records: Sequence[Record]) -> None:
        """After a removal the records are still gone, and the session is still down."""
        await asyncio.sleep(SETTLE)
        there = await in_thread(self.keys.names, self.id)
        if back := len({record.key for record in records} & there):
            cause = f"{back} were written again, so something still runs this session"
            raise cannot(f"remove keys of {self.id}", cause, "written_back")
        if not (await self.calls.look(self.id)).down:
            cause = "the server connected it meanwhile"
            raise cannot(f"be sure of the keys of {self.id}", cause, "server_reconnected")

    # down and up

    async def _while_down(self, work: Callable[[], Awaitable[None]]) -> None:
        """Down, the work, up again; up also if either fails. The first error is raised."""
        await self.must_have_whole_creds(stored=True)
        self.went_down()
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
        what = f"disconnect {self.id}"
        if self.calls.own.hang_up is None:
            if await self._down_twice():
                return
            raise cannot(what, "it would end the pairing on this server", "not_supported")
        try:
            await self._again(partial(self.calls.do, what, "disconnect", self.id))
        except EngineError as error:
            # Some servers refuse to disconnect a session that is not connected.
            if error.code != "remote_refused" or not await self._down_twice():
                raise
            return
        deadline = boot_now() + DOWN_WITHIN
        while not await self._down_twice():
            if boot_now() > deadline:
                cause = f"it is still not down after {DOWN_WITHIN:g} s"
                raise cannot(what, cause, "still_connected")
            await asyncio.sleep(LOOK_EVERY)

    async def come_up(self) -> None:
        """Return when it is connected; a QR code instead means that the pairing is gone."""
        await self._again(self.begin)
        self.report("start-session: the server takes it up")
        await self.wait("connect", self._is_up)
        self.report("wait: it is connected")

    async def begin(self) -> None:
        """Ask for the start, unless the server has begun by itself: two sockets fight."""
        row = await self.calls.look(self.id)
        if claim_of_row(row).status in (Status.DISCONNECTED, Status.RECONNECTING):
            await self.must_have_whole_creds()
            await self.calls.do(f"start {self.id}", "start", self.id)

    async def must_have_whole_creds(self, *, stored: bool = False) -> None:
        """Baileys replaces damaged creds by empty ones: a start would end the pairing. While it
        runs it has good ones in memory and writes them again, so it is left alone. `stored`: those
        of a connected session must be there as well, or the configured place is wrong."""
        state = await in_thread(self.keys.look, self.id)
        if state == "damaged":
            cause = "its creds are damaged, and a start would replace them with empty ones"
            raise cannot(f"start {self.id} again", cause, "session_damaged")
        lacks = stored and state in ("absent", "unpaired", "unreadable")
        if lacks and (await self.calls.look(self.id)).connected:
            cause = "it is connected, but its creds are not where the settings say; a start would"
            cause += " begin a new pairing"
            raise cannot(f"touch the keys of {self.id}", cause, "session_missing")

    async def wait(self, what: str, wanted: Callable[[Row], bool]) -> Row:
        deadline = boot_now() + UP_WITHIN
        while not wanted(row := await self.calls.look(self.id)):
            if boot_now() > deadline:
                cause = f"it is {row.status or 'without a status'} after {UP_WITHIN:g} s"
                raise cannot(f"{what} {self.id}", cause, "not_connected")
            await asyncio.sleep(LOOK_EVERY)
        return row

    async def _again(self, request: Callable[[], Awaitable[object]]) -> None:
        """The request, and again after a pause where the server may have changed its mind."""
        for number in range(1, TRIES + 1):
            try:
                await request()
            except EngineError as error:
                refused = isinstance(error, ServerDown) and error.reason == "refused_key"
                if number == TRIES or refused or error.code not in _AGAIN:
                    raise
            else:
                return
            await asyncio.sleep(PAUSE * 2.0 ** (number - 1))

    async def _down_twice(self) -> bool:
        if not (await self.calls.look(self.id)).down:
            return False
        # Most of these servers connect again by themselves right after a drop.
        await asyncio.sleep(SETTLE)
        return (await self.calls.look(self.id)).down

    def _is_up(self, row: Row) -> bool:
        if row.asks:
            raise cannot(f"connect {self.id}", "it asks for a new pairing", "pairing_lost")
        return row.connected
