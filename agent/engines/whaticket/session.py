"""One session on a whaticket-like server, as a RemoteEngine."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from agent.core.words import Claim, ConnectionStatus, Happening, InstanceId
from agent.engines.base import ProbeAnswer, Qr, Reporter
from agent.engines.remote.answers import ServerDown
from agent.engines.remote.outcomes import UNKNOWN, Outcomes
from agent.engines.remote.session import RemoteSession
from agent.engines.tasks import Tasks, in_thread, runs
from agent.engines.whaticket import key_changes
from agent.engines.whaticket.down_and_up import DownAndUp
from agent.engines.whaticket.keys.store import SessionStore
from agent.engines.whaticket.messages import read_text, send_text
from agent.engines.whaticket.rows import Row, id_of, missing_claim, no_such_session
from agent.engines.whaticket.server import NOT_RUNNING, WhaticketServer
from agent.engines.whaticket.settings import WhaticketSettings
from agent.engines.whaticket.turns import Turn
from agent.engines.whaticket.view import SessionView
from agent.errors import EngineError, InvalidRequest

Status = ConnectionStatus
_CODE_LASTS = 20.0
_LOOK_AGAIN = 1.0


@dataclass(frozen=True, slots=True)
class Shared:
    """What all sessions of one backend share."""

    server: WhaticketServer
    store: SessionStore
    settings: WhaticketSettings
    doubt: Callable[[], None]
    """Called when the server gave no usable answer."""


class WhaticketSession(RemoteSession):
    """Repairs run in tasks of their own: they end, also when the request is cancelled."""

    def __init__(
        self,
        id: InstanceId,
        remote: str,
        shared: Shared,
        reporter: Reporter,
        *,
        adopted: bool = False,
    ) -> None:
        """`adopted`: the session was on the server before the agent had it."""
        self.id = id
        self._adopted = adopted
        self.remote = remote or id
        self._server = shared.server
        self._store = shared.store
        self._settings = shared.settings
        self._doubt = shared.doubt
        self._reporter = reporter
        self._view = SessionView(shared.settings.server.prove)
        self._busy = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None
        self._outcomes = Outcomes(reporter.crashed)
        self._tasks = Tasks(reporter.crashed, expected=(EngineError, InvalidRequest))
        self.server_id = self.remote if self.remote.isdigit() else ""
        """What the routes take; "" = not known yet."""

    async def probe(self, *, deep: bool = False) -> ProbeAnswer:
        try:
            id = await self._find()
            row = await self._server.state(id) if id else None
            rows = await self._server.rows.get() if deep else []
        except ServerDown:
            self._doubt()
            raise
        claim = missing_claim() if row is None else await self._claim(row)
        if not deep:
            return ProbeAnswer(claim, {} if row is None else {"status": row.status})
        listed = next((row for row in rows if row.id == id), None)
        return ProbeAnswer(claim, self._view.answers(row, listed, time.monotonic()))

    async def qr(self) -> Qr | None:
        row = await self._row()
        if row.down and not self._view.paired:
            # The code was not scanned in time: the server shows codes again after a start.
            round = self._round(row.id)
            await round.begin()
            row = await round.wait("get a code of", lambda row: row.asks or row.connected)
        if not row.asks or not row.qrcode:
            return None
        number, age = self._view.code(row.qrcode, time.monotonic())
        return Qr(row.qrcode, max(_CODE_LASTS - age, 1.0), number)

    def note_turn(self, turn: Turn) -> None:
        """The log tells that a connection began or ended: look at once."""
        self._view.note_turn(turn, time.monotonic())
        if turn.reason == "logout" and not turn.open:
            # At once: the server may show another state by the time that it is asked.
            self._reporter.claim(Claim(Status.DISCONNECTED, "logout"))
        self.look_soon()

    def look_soon(self) -> None:
        if not runs(self._looking):
            self._looking = self._tasks.start(self._look(), "look")

    async def connect(self) -> None:
        id = await self._find() or await self._create()
        await self._round(id).begin()
        self._view.hung_up = False
        self.look_soon()

    async def disconnect(self) -> None:
        row = await self._row()

        async def work() -> None:
            self._view.hung_up = True
            await self._round(row.id).go_down()

        await self._alone("disconnect", work())

    async def restart(self) -> None:
        row = await self._row()
        contract, id = self._server.contract, row.id

        async def work() -> None:
            await self._round(id).must_have_whole_creds()
            if contract.hang_up is not None:
                await self._round(id).go_down()
                await self._round(id).begin()
            elif contract.restart is not None and not row.down:
                await self._server.do(f"restart {id}", contract.restart, id)
            else:
                await self._server.do(f"start {id}", contract.start, id)

        await self._alone("restart", work())

    async def logout(self) -> None:
        row = await self._row()
        try:
            await self._server.do(f"log out {row.id}", self._server.contract.logout, row.id)
        except EngineError as error:
            if NOT_RUNNING not in str(error):
                raise
            return  # it is not in the server's memory: there is nothing to log out
        self._view.logged_out()
        self._reporter.claim(Claim(Status.DISCONNECTED, "logout"))

    async def renew(self, *, confirmed: bool) -> None:
        """The server's row stays."""
        row = await self._row()
        await self._alone("renew", self._renew(self._round(row.id)))

    async def regenerate_keys(self, peers: list[str]) -> None:
        self._must_change_keys("regenerate keys")
        row = await self._row()
        try:
            renewing = key_changes.regenerate(self._round(row.id), peers, damaged=True)
            await self._alone("regenerate keys", renewing)
        except EngineError as error:
            self._report_keys(peers, {"ok": False, "code": error.code})
            raise
        self._report_keys(peers, {"ok": True})

    async def send(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        return await self._outcomes.once(message, lambda: self._send(message))

    async def sent(self, message: Mapping[str, Any], begun: float) -> Mapping[str, Any]:
        """The server tells no id and shows no messages: only this worker knows."""
        answer = await self._outcomes.of(str(message.get("key") or ""), begun)
        return answer or {"id": "", "outcome": UNKNOWN, "cause": "its server tells it to nobody"}

    async def _send(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        text = read_text(message)
        row = await self._row()
        if not row.connected:
            raise EngineError("cannot send: not connected", code="not_connected")
        sent = await send_text(self._server, row, text, self._settings.server.key)
        if sent["outcome"] == "sent":
            self._reporter.happened(Happening("message", {"direction": "out", "type": "text"}))
        return sent

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        if name == "removed":
            row = await self._row()
            removals = await in_thread(self._store.shelf.all, row.id)
            return {"removed": [removal.shown() for removal in removals]}
        if name == "restore_removed":
            self._must_change_keys("put keys back")
            row = await self._row()
            removal = arguments.get("name")
            await self._alone("put keys back", key_changes.put_back(self._round(row.id), removal))
            return {"name": removal}
        raise InvalidRequest(
            f"cannot {name!r:.40}: the whaticket engine knows removed and restore_removed",
            field="name",
        )

    async def close(self) -> None:
        """A repair that has begun is ended, so that the session does not stay down."""
        if self._looking is not None:
            self._looking.cancel()
        await self._tasks.wait()

    async def _renew(self, round: DownAndUp) -> None:
        contract, store = self._server.contract, self._store
        if contract.hang_up is None or not store.usable:
            await store.copy_all(round.id, "the session starts over")
            await self._server.do(f"renew {round.id}", contract.new_qr, round.id)
        else:
            await key_changes.start_over(round)
        self._view.logged_out()
        await round.wait("get a code of", lambda row: row.asks)

    def _must_change_keys(self, what: str) -> None:
        key_changes.must_be_possible(what, self._server.contract, self._store)

    def _report_keys(self, peers: list[str], outcome: Mapping[str, Any]) -> None:
        for peer in peers:
            self._reporter.happened(Happening("key_regeneration", {"peer": peer, **outcome}))

    async def _alone(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        """One at a time, and to its end."""
        if self._busy.locked():
            work.close()
            raise EngineError(f"cannot {what}: another repair of it is under way", code="busy")
        await self._busy.acquire()
        task = self._tasks.start(work, what)
        task.add_done_callback(lambda _: self._busy.release())
        try:
            await asyncio.shield(task)
        finally:
            self.look_soon()

    async def _look(self) -> None:
        try:
            answer = await self.probe()
        except EngineError:
            return
        self._reporter.claim(answer.claim)
        await asyncio.sleep(_LOOK_AGAIN)

    async def _claim(self, row: Row) -> Claim:
        files = "unknown"
        if not row.connected:
            with suppress(EngineError):
                files = await self._store.look(row.id)
        claim = self._view.judge(row, files, time.monotonic())
        if self._server.contract.hang_up is None:
            claim = replace(claim, useless=("reconnect",))  # its disconnect ends the pairing
        return claim if claim.account else replace(claim, account=row.number)

    async def _row(self) -> Row:
        id = await self._find()
        row = await self._server.state(id) if id else None
        if row is None:
            raise no_such_session(self.remote)
        return row

    async def _find(self) -> str:
        """The server's id of it; "" when there is none."""
        if self.server_id:
            return self.server_id
        self.server_id = id_of(self.remote, await self._server.rows.get())
        return self.server_id

    async def _create(self) -> str:
        if self._adopted:
            raise no_such_session(self.remote)  # what others made is not made again in its place
        what, body = f"create {self.remote!r:.60}", {"name": self.remote}
        await self._server.do(what, self._server.contract.create, "", body)
        if id := await self._find():
            return id
        raise EngineError(f"cannot {what}: it is not in the server's list", code="remote_missing")

    def _round(self, id: str) -> DownAndUp:
        server, store, settings = self._server, self._store, self._settings
        step, went_down = self._report_step, self._went_down
        return DownAndUp(server, store, settings, id, step, went_down=went_down)

    def _went_down(self) -> None:
        """The session may be up again before the next probe."""
        self._reporter.claim(Claim(Status.DISCONNECTED, paired=self._view.paired))

    def _report_step(self, sentence: str) -> None:
        self._reporter.happened(Happening("repair_step", {"text": sentence}))
