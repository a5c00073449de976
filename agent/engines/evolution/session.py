"""One session on the server: its probes and actions. It judges nothing by itself."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agent.core.words import Claim, ConnectionStatus, Happening, InstanceId
from agent.engines.base import ProbeAnswer, Qr, Reporter
from agent.engines.evolution import login, looks, renewal
from agent.engines.evolution.claims import Live
from agent.engines.evolution.hooks import HookEvent, acks_told, messages_told
from agent.engines.evolution.known import STATE_EVENTS, Known
from agent.engines.evolution.messages import outcome, read_text
from agent.engines.evolution.options import read_or_change
from agent.engines.evolution.proof import Proof
from agent.engines.evolution.shared import Server
from agent.engines.remote.http import ServerDown
from agent.errors import EngineError, InvalidRequest

BAILEYS = ("", "WHATSAPP-BAILEYS")
"""Only sessions of these integrations can be asked for proof."""


class EvolutionSession:
    """A RemoteEngine. Actions wait for each other; a probe waits for none of them."""

    def __init__(self, id: InstanceId, remote: str, server: Server, reporter: Reporter) -> None:
        self.id = id
        self.remote = remote
        self.reporter = reporter
        self._server = server
        self._api = server.api
        self._known = Known(server.pace, remembered=server.memory.of(remote))
        self._acting = asyncio.Lock()
        self._renewing = False
        self._dead = False
        self._told: Claim | None = None
        self._probed: Claim | None = None

    @property
    def is_there(self) -> bool:
        """Whether the server had it at the last look."""
        return self._known.live is not Live.MISSING

    # asked

    async def probe(self, *, deep: bool = False) -> ProbeAnswer:
        if self._renewing:
            return ProbeAnswer(Claim(ConnectionStatus.INITIALIZING, raw="it is made again"))
        limit = self._server.probe_limit
        try:
            async with asyncio.timeout(limit):
                return await self._probe(deep)
        except TimeoutError as error:
            self._server.doubt()
            cause = f"no answer within {limit:g} s"
            raise ServerDown(f"probe {self.remote}", "timeout", cause) from error

    async def _probe(self, deep: bool) -> ProbeAnswer:
        known = self._known
        known.note_live(await looks.settled_state(self._server, known, self.remote))
        detail = await looks.deep(self._server, known, self.remote) if deep else {}
        match known.live:
            case Live.OPEN:
                if deep or self._dead:
                    await self._prove()
            case Live.CONNECTING:
                if known.paired_unknown:
                    await looks.learn_pairing(self._server, known, self.remote)
                await self._look_for_code()
            case Live.CLOSE if not known.end_known:
                await looks.take_row(self._api, known, self.remote)
        if deep:
            detail["qr"] = known.can_show_code()
        self._probed = self._claim()
        return ProbeAnswer(self._probed, detail)

    async def qr(self) -> Qr | None:
        known = self._known
        known.note_live(await self._api.state(self.remote))
        if known.live is Live.CLOSE:
            await looks.take_row(self._api, known, self.remote)
            if known.paired:
                return None
            await self.connect()
        elif known.live is Live.CONNECTING:
            await looks.take_shown(
                self._api, self._known, self.remote, await self._api.connect(self.remote)
            )
        if known.live is Live.CONNECTING and not known.paired and known.code() is None:
            await login.wait_for_code(known, self._show, self._server.pace)
        return known.qr()

    # acted on

    async def connect(self) -> None:
        async with self._acting:
            if self._api.old and self._known.live is Live.CLOSE:
                # Does it stay closed? 1.8 comes back by itself from all but a logout.
                self._known.note_live(await self._api.state(self.remote))
            await self._connect()

    async def disconnect(self) -> None:
        """The server has no disconnect that keeps the pairing."""

    async def restart(self) -> None:
        async with self._acting:
            known = self._known
            known.note_live(await self._api.state(self.remote))
            if known.live in (Live.OPEN, Live.CONNECTING) and self._api.old:
                raise EngineError(
                    f"cannot restart {self.remote}: a server of version 1.8 ignores it for one"
                    " that connects, and for one that is open it begins a second connection"
                    " beside the first: both replace each other without an end",
                    code="remote_refused",
                )
            # In `close` a restart is refused, and a connect does the same.
            closed = known.live in (Live.CLOSE, Live.MISSING)
            if not closed and await self._api.restart(self.remote):
                known.begin()
                self._server.rows.forget()
                return
            await self._connect()

    async def logout(self) -> None:
        async with self._acting:
            await self._api.logout(self.remote)
            # The answer comes first, and says success also where the server does nothing: a paired
            # session that is not connected cannot tell WhatsApp about it, and stays as it is.
            pace, known = self._server.pace, self._known
            if not await renewal.is_logged_out(
                self._api, self.remote, pace, lambda: known.logged_out
            ):
                raise EngineError(
                    f"cannot log {self.remote} out: it has not closed after {pace.gone_wait:g} s",
                    code="no_effect",
                )
            self._server.rows.forget()
            if not known.logged_out:  # else the webhook has told it
                known.note_logout()
                self._remember()
                self._tell(Claim(ConnectionStatus.DISCONNECTED, "logout", account=known.account))

    async def renew(self) -> None:
        async with self._acting:
            self._renewing = True
            try:
                server = self._server
                await renewal.take_away(self._api, server.folder, self.remote, server.pace)
                self._known, self._dead = Known(server.pace), False
                await self._create()
                await self._connect()
            finally:
                self._renewing = False
            server.hooks.want(self.remote, now=True)

    async def regenerate_keys(self, peers: list[str]) -> None:
        raise EngineError(
            "cannot regenerate keys: an Evolution server offers no way to", code="not_supported"
        )

    async def send(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        number, text = read_text(message)
        try:
            told = outcome(await self._api.send_text(self.remote, number, text))
        except ServerDown as down:
            if not down.reached or down.reason in ("refused_key", "licence_missing", "not_found"):
                raise
            # The server has the text; whether WhatsApp has it is not known.
            return {"id": "", "outcome": "unknown", "cause": down.cause}
        if told["outcome"] == "sent" and self._server.seen.first(self.remote, told["id"]):
            detail = {"direction": "out", "type": "text", "id": told["id"]}
            self.reporter.happened(Happening("message", detail))
        return told

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        if name == "pairing_code":
            return await self._pairing_code(arguments)
        if name == "settings":
            return await read_or_change(self._api, self.remote, arguments)
        if name == "delete":
            async with self._acting:
                await renewal.delete(self._api, self._server.folder, self.remote, self._server.pace)
            return {}
        raise InvalidRequest(
            f"cannot {name!r:.40}: the evolution engine knows pairing_code, settings and delete",
            field="name",
        )

    async def free_memory(self) -> None: ...

    async def prepare_stop(self) -> None: ...

    async def save(self) -> None: ...

    async def close(self) -> None: ...

    # told by the webhook

    async def told(self, event: HookEvent) -> None:
        if event.kind in STATE_EVENTS:
            if not self._renewing and self._known.told(event):
                self._tell_change(self._claim())
            return
        if event.kind == "REMOVE_INSTANCE":
            await self._look_again()
            return
        happenings = acks_told if event.kind == "MESSAGES_UPDATE" else messages_told
        for happening in happenings(event.content):
            id = str(happening.detail.get("id"))
            if happening.kind == "message" and not self._server.seen.first(self.remote, id):
                continue
            if happening.detail.get("direction") == "in":
                self._dead = False  # the message came through it
            self.reporter.happened(happening)

    async def _look_again(self) -> None:
        """The server deleted it; our own renewal deletes it too and creates it again."""
        if self._renewing:
            return
        try:
            self._known.note_live(await self._api.state(self.remote))
        except EngineError:
            return  # the next probe tells
        self._tell_change(self._claim())

    # in small steps

    async def _connect(self) -> None:
        known = self._known
        known.begin()
        try:
            shown = await self._api.connect(self.remote)
        except EngineError as error:
            if error.code != "remote_missing":
                raise
            await self._create()
            shown = await self._api.connect(self.remote)
        # A slow server may have created it after our request had run out of time.
        await renewal.give_back(self._api, self._server.folder, self.remote)
        known.note_live(Live.CONNECTING)
        await looks.take_shown(self._api, known, self.remote, shown)
        self._tell_change(self._claim())

    async def _create(self) -> None:
        known = self._known
        asked_before, known.awaited = known.awaited, True
        try:
            await renewal.create(self._api, self._server.folder, self.remote)
        except ServerDown:
            raise
        except EngineError as error:
            known.awaited = False
            if not (asked_before and error.code == "remote_exists"):
                raise
        known.note_created()
        self._server.rows.forget()
        self._server.hooks.want(self.remote, now=True)

    async def _prove(self) -> None:
        known = self._known
        if self._server.prover is None or known.integration not in BAILEYS:
            return
        proof = await self._server.prover.ask(self.remote, known.account)
        if proof is not Proof.UNKNOWN:
            self._dead = proof is Proof.DEAD
        if self._dead:
            raise EngineError(
                "cannot query WhatsApp through the session: it says open and does not answer",
                code="zombie",
            )

    async def _look_for_code(self) -> None:
        if self._known.code() is not None:
            return
        try:
            await self._show()
        except ServerDown:
            raise
        except EngineError:
            return  # it changed since the state was read; the next probe sees

    async def _show(self) -> None:
        await looks.take_shown(
            self._api, self._known, self.remote, await self._api.connect(self.remote)
        )

    async def _pairing_code(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        phone = arguments.get("phone")
        digits = "".join(each for each in str(phone) if each in "0123456789")
        if not isinstance(phone, str) or not 7 <= len(digits) <= 15:
            raise InvalidRequest("cannot get a pairing code: phone is no number", field="phone")
        async with self._acting:
            known = self._known
            known.note_live(await self._api.state(self.remote))
            await looks.take_row(self._api, known, self.remote)
            pace = self._server.pace
            return await login.pairing_code(
                self._api,
                known,
                self.remote,
                digits,
                pace,
                take=lambda shown: looks.take_shown(self._api, known, self.remote, shown),
            )

    def _claim(self) -> Claim:
        self._remember()
        claim = self._known.claim()
        if self._known.live in (Live.CONNECTING, Live.OPEN) and self._api.old:
            return replace(claim, useless=(*claim.useless, "restart"))
        return claim

    def _remember(self) -> None:
        if self._api.old:  # the list of 2.x tells it
            self._server.memory.put(self.remote, self._known.remembered)

    def _tell(self, claim: Claim) -> None:
        self._told = claim
        self.reporter.claim(claim)

    def _tell_change(self, claim: Claim) -> None:
        """Tell news only: an endless loop says `connecting` many times a second."""
        news = (claim.status, claim.reason)
        if any(each is None or (each.status, each.reason) != news for each in self._both()):
            self._tell(claim)

    def _both(self) -> tuple[Claim | None, Claim | None]:
        """The last claim told and the last one answered; the agent has the newer."""
        return self._told, self._probed
