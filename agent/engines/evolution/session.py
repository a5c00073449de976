"""One session on the server: its probes and actions. It judges nothing by itself."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from agent.core.words import Claim, ConnectionStatus, InstanceId
from agent.engines.base import ProbeAnswer, Qr, Reporter
from agent.engines.evolution.between_probes import BetweenProbes
from agent.engines.evolution.claims import Live, came_back
from agent.engines.evolution.observer import Observer, Server
from agent.engines.evolution.options import read_or_change
from agent.engines.evolution.proof import Opening
from agent.engines.evolution.remembered_file import SessionNote
from agent.engines.evolution.renewal import Renewal
from agent.engines.evolution.told import Told
from agent.engines.evolution.view import SessionView
from agent.engines.evolution.webhook.confirming import is_so
from agent.engines.evolution.webhook.hooks import HookEvent, read_acks, read_messages
from agent.engines.phones import phone_of
from agent.engines.remote.answers import ServerDown, silent_for
from agent.engines.remote.session import RemoteSession
from agent.errors import EngineError, InvalidRequest

_STATE_EVENTS = ("CONNECTION_UPDATE", "QRCODE_UPDATED", "STATUS_INSTANCE", "LOGOUT_INSTANCE")


class EvolutionSession(RemoteSession):
    """A RemoteEngine. Actions and `qr` wait for each other; a probe waits for none of them."""

    def __init__(
        self,
        id: InstanceId,
        remote: str,
        server: Server,
        reporter: Reporter,
        *,
        adopted: bool = False,
    ) -> None:
        """`adopted`: the session was on the server before the agent had it."""
        self.id, self.remote, self.reporter = id, remote, reporter
        self._server, self._api = server, server.api
        self._opening = Opening(remote, server.prover)
        self._acting = asyncio.Lock()
        self._renewal = Renewal(server.api, server.folder, remote, server.pace, adopted)
        self._renewing = self._logging_out = False
        view = self._view_of(server.notes.get(remote))
        self._told = Told(
            *(remote, server, reporter, view, self._opening, self._renewal),
            lambda: self._between.prove(self._prove()),
        )
        self._between = BetweenProbes(self._told.report_change)
        self._view, self._observer = view, Observer(server, remote, view, self._acting)

    @property
    def is_there(self) -> bool:
        """Whether the server had it at the last look."""
        return self._view.live is not Live.MISSING

    def server_is_away(self) -> None:
        """What comes back may be another session of that name."""
        self._opening.begin()

    async def probe(self, *, deep: bool = False) -> ProbeAnswer:
        if self._renewing:
            return ProbeAnswer(Claim(ConnectionStatus.INITIALIZING, raw="it is created again"))
        limit = self._server.probe_limit
        try:
            async with asyncio.timeout(limit):
                return await self._probe(deep)
        except TimeoutError as error:
            self._server.doubt()
            raise ServerDown(f"probe {self.remote}", "timeout", silent_for(limit)) from error

    async def _probe(self, deep: bool) -> ProbeAnswer:
        view, observer = self._view, self._observer
        await observer.settled_state()
        await observer.absence()
        self._told.live = view.live
        detail = await observer.detail() if deep else {}
        if view.live is not Live.OPEN:
            self._opening.begin()
        match view.live:
            case Live.OPEN:
                if not self._opening.owner_known:
                    await observer.owner(self._opening.since)
                    self._opening.owner_known = True
                unproved = self._opening.lacks(view.integration)
                if (deep or unproved) and not view.logins.fight:
                    await self._opening.prove(view.integration, view.account)
            case Live.CONNECTING:
                await observer.missing_pairing()
                await observer.missing_code()
            case Live.CLOSE if not view.end_known:
                await observer.row()
        self._between.begin(observer)
        if deep:
            detail["qr"] = view.can_show_code()
        return ProbeAnswer(self._told.answer(), detail)

    async def qr(self) -> Qr | None:
        if self._renewing:
            return None
        async with self._acting:
            view, observer = self._view, self._observer
            await observer.state()
            if view.live is Live.CLOSE:
                await observer.row()
                if view.paired:
                    return None
                await self._connect()
            elif view.live is Live.CONNECTING:
                await observer.missing_pairing()
                if not view.unpaired:
                    return None
                await observer.connect()
            if view.live is Live.CONNECTING and view.code() is None:
                await observer.wait_for_code()
            return view.qr()

    async def connect(self) -> None:
        async with self._acting:
            await self._observer.state()
            view = self._view
            if view.live is Live.CONNECTING and not view.unpaired and not view.logins.fight:
                return  # by itself
            await self._connect()

    async def disconnect(self) -> None:
        """The server has no disconnect that keeps the pairing."""

    async def restart(self) -> None:
        async with self._acting:
            view = self._view
            heard = None if view.logins.fight else self._told.live
            await self._observer.state()
            if view.live is Live.OPEN and heard not in (None, Live.OPEN):
                # It came back by itself since the agent decided on this.
                self._told.report_change()
                return
            # In `close` a restart is refused, and a connect does the same.
            if view.live not in (Live.CLOSE, Live.MISSING) and await self._observer.restart():
                self._server.rows.forget()
                return
            await self._connect()

    async def logout(self) -> None:
        async with self._acting:
            self._logging_out = True
            try:
                await self._log_out()
            finally:
                self._logging_out = False

    async def _log_out(self) -> None:
        view = self._view
        await self._api.logout(self.remote)
        # The answer comes first, and says success also where the server does nothing: a paired
        # session that is not connected cannot tell WhatsApp about it, and stays as it is.
        if not await self._renewal.is_logged_out(lambda: view.logged_out):
            raise EngineError(
                f"cannot log {self.remote} out: it has not closed after"
                f" {self._server.pace.gone_wait:g} s",
                code="no_effect",
            )
        self._server.rows.forget()
        if not view.logged_out:  # else the webhook has told it
            self._told.report_logout()

    async def renew(self, *, confirmed: bool) -> None:
        async with self._acting:
            self._renewing = True
            try:
                view = self._view
                heard = None if view.logins.fight else self._told.live

                def again(live: Live) -> bool:
                    return came_back(heard, live)

                if confirmed or self._renewal.may_replace(self.id, view.paired, view.unpaired):
                    await self._renewal.take_away(again)
                    self._observe(self._view_of(None))
                    self._opening.begin()
                    await self._connect(may_create=confirmed)
                else:
                    await self._renewal.log_out(self.id, again)
                    view.note_end("logout")
                    await self._observer.state()
                    await self._connect()
            finally:
                self._renewing = False
            self._server.hooks.want(self.remote, now=True)

    async def regenerate_keys(self, peers: list[str]) -> None:
        raise EngineError(
            "cannot regenerate keys: an Evolution server offers no way to", code="not_supported"
        )

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        if name == "pairing_code":
            digits = phone_of(arguments)
            async with self._acting:
                return await self._observer.pairing_code(digits, self._renewal)
        if name == "settings":
            return await read_or_change(self._api, self.remote, arguments)
        if name == "delete":
            async with self._acting:
                await self._renewal.delete()
            return {}
        cause = "the evolution engine knows pairing_code, settings and delete"
        raise InvalidRequest(f"cannot {name!r:.40}: {cause}", field="name")

    async def close(self) -> None: ...

    def end_watch(self) -> None:
        self._between.end()

    async def take_event(self, event: HookEvent) -> None:
        if event.kind in _STATE_EVENTS:
            if not self._renewing:
                await self._take_state_event(event)
            return
        if event.kind == "REMOVE_INSTANCE":
            await self._look_again()
            return
        self._count(event)

    def _count(self, event: HookEvent) -> None:
        """Messages and their acknowledgements. One that came in proves the connection."""
        read = read_acks if event.kind == "MESSAGES_UPDATE" else read_messages
        for happening in read(event.content):
            detail = happening.detail
            if happening.kind == "message" and not self._server.seen.first(
                self.remote, detail["id"]
            ):
                continue
            if detail.get("direction") == "in":
                self._opening.came_through()
            self.reporter.happened(happening)

    async def _take_state_event(self, event: HookEvent) -> None:
        view = self._view
        try:
            believed = self._logging_out or await is_so(event, self._observer)
        except EngineError:
            return  # the next probe tells
        if view is not self._view or self._renewing:
            return  # it is another session by now
        # A probe may have seen the state before the look found its reason.
        if view.note_event(event) if believed else view.end_known or view.live != self._told.live:
            if view.live is not Live.OPEN:
                self._opening.begin()
            self._told.report_change()

    async def _look_again(self) -> None:
        """The server deleted it; our own renewal deletes it too and creates it again."""
        if self._renewing:
            return
        try:
            await self._observer.state()
            await self._observer.absence()
        except EngineError:
            return  # the next probe tells
        self._told.report_change()

    def _view_of(self, note: SessionNote | None) -> SessionView:
        return SessionView(self._server.pace, remembered=note, old=lambda: self._api.may_be_old)

    def _observe(self, view: SessionView) -> None:
        """From now on; what a probe of before still reads goes into the earlier view."""
        self._between.end()
        self._view = self._told.view = view
        self._observer = Observer(self._server, self.remote, view, self._acting)

    async def _connect(self, *, may_create: bool = False) -> None:
        view = self._view
        if view.live is Live.MISSING:
            if not may_create:
                self._renewal.refuse_creation(self.id)
            await self._create()
        elif view.live is Live.CLOSE and not view.end_known:
            await self._observer.row()
            await self._observer.missing_pairing(now=True)
        await self._observer.connect()
        # A slow server may have created it after our request had run out of time.
        await self._renewal.give_back()
        self._told.report_change()

    async def _create(self) -> None:
        view = self._view
        asked_before, view.awaited = view.awaited, True
        try:
            await self._renewal.create()
        except ServerDown:
            raise
        except EngineError as error:
            view.awaited = False
            if view.paired or not (asked_before and error.code == "remote_exists"):
                raise
        view.note_created()
        self._server.rows.forget()
        self._server.hooks.want(self.remote, now=True)

    async def _prove(self) -> None:
        with suppress(EngineError):  # the next probe tells
            self._told.report((await self.probe()).claim)
