"""Evolution API 1.8 and 2.x as somebody's server: what server.py asks of it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.backends.evolution_calls import OPTIONS, EvolutionCalls, Live
from agent.backends.evolution_renewal import LOOK_EVERY, Renewal, folder_name
from agent.backends.evolution_session import EvolutionSession
from agent.backends.http import Http, ServerDown, segment
from agent.backends.server import Listed
from agent.clock import boot_now
from agent.config.declaration import BackendDeclaration
from agent.core.words import NO_PROOF, Claim, RemoteSession
from agent.engines.base import Qr
from agent.engines.phones import phone_of
from agent.engines.tasks import cancel, runs
from agent.errors import EngineError, InvalidRequest

BAILEYS = ("", "WHATSAPP-BAILEYS")
"""Only sessions of these integrations can be asked for proof."""
NO_ROUTE = (
    "the server, or a proxy before it, has no route POST /chat/fetchBusinessProfile, so whether its"
    " open sessions are connected is not proved; let that route pass, or set prove = false for this"
    " [[backend]] in agent.toml to believe what the server says"
)
QUERY_LIMIT = 4.0
"""Seconds that WhatsApp may take to answer the query of a proof."""
ONE_LOGIN = 10.0
"""Seconds after a login was asked for in which a restart is the same wish: two would fight."""
VERSION_AGAIN = 300.0
SETTLED = 5.0
_LOOKS = 8
"""Looks at an unsteady session, one after another."""
CODE_WAIT, PAIRING_WAIT = 3.0, 7.0
"""Seconds that a request for a code waits for the first one; for one to type on a phone."""


class Evolution:
    """A ServerApi. Made inside a running loop; `close` ends it."""

    def __init__(self, declared: BackendDeclaration, folder: Path) -> None:
        """`folder`: for what is deleted on the server."""
        self.declared, self.folder = declared, folder
        self.calls = EvolutionCalls(Http(declared, {"apikey": declared.key}))
        self.held: dict[str, EvolutionSession] = {}
        # Dead sessions hold their turns long: only half of all are theirs.
        self._proofs = asyncio.Semaphore(max(1, declared.parallel // 2))
        self._version_at = float("-inf")
        self._learning: asyncio.Task[None] | None = None

    @property
    def version(self) -> str:
        return self.calls.version

    @property
    def list_every(self) -> float:
        return self.calls.dialect.list_every

    async def sessions(self) -> Listed:
        at = boot_now()
        if at - self._version_at >= VERSION_AGAIN and not runs(self._learning):
            # It may take seconds: the list does not wait for it.
            self._version_at = at
            self._learning = asyncio.create_task(self.calls.learn_version(), name="version")
        rows, seconds = await self.calls.rows()
        for session in self.held.values():
            session.note_row(rows.get(session.name), at)
        sessions = tuple(RemoteSession(it.name, it.status, it.account) for it in rows.values())
        unproved = self.declared.prove and not self.calls.has_query
        reason, warning = (NO_PROOF, NO_ROUTE) if unproved else ("", "")
        return Listed(sessions, seconds, reason, warning)

    def away(self) -> None:
        self._version_at = float("-inf")  # another version may come back
        for session in self.held.values():
            session.away()

    async def hold(self, remote: str, *, adopted: bool, paired: bool, account: str) -> None:
        segment(remote)
        session = EvolutionSession(remote, self.calls, adopted, paired or None, account)
        await self._renewal(session).load()
        self.held[remote] = session

    def forget(self, remote: str) -> None:
        self.held.pop(remote, None)

    def claim(self, remote: str) -> Claim | None:
        session = self.held[remote]
        return None if session.live is None else session.claim()

    def due(self) -> list[str]:
        return [session.name for session in self.held.values() if session.is_due]

    async def look(self, remote: str, *, deep: bool = False) -> Mapping[str, Any]:
        """EngineError `zombie`: it says open, and WhatsApp does not answer through it."""
        session = self.held[remote]
        if session.renewing:
            return {}
        await self._state(session)
        if session.needs_row:
            await self._row(session)
        if session.live is Live.OPEN:
            await self._prove(session, deep)
        if session.asks_account():
            session.note_account(await self.calls.has_account(remote))
        if session.live is Live.CONNECTING and session.paired is False:
            await self._missing_code(session)
        return self._detail(session) if deep else {}

    async def connect(self, remote: str) -> None:
        """Begin a login where the server does not do so by itself. A session that the server lost
        is made, unless others made it."""
        async with self.held[remote].acting:
            await self._connect(self.held[remote], may_create=False)

    async def restart(self, remote: str) -> None:
        """Have the server connect it again with its pairing."""
        session = self.held[remote]
        async with session.acting:
            if boot_now() - session.begun_at < ONE_LOGIN:
                return
            heard = None if session.fight else session.live
            await self._state(session)
            if session.live is Live.OPEN and heard not in (None, Live.OPEN):
                return  # it came back since this was decided
            # In `close` a restart is refused, and a connect does the same.
            if session.live not in (Live.CLOSE, Live.MISSING):
                if cause := session.refuse_login(restart=True):
                    raise _refused("restart", remote, cause)
                if await self.calls.restart(remote):
                    session.begin()
                    return
                await self._state(session)
            await self._connect(session, may_create=False)

    async def logout(self, remote: str) -> None:
        """End its pairing. The caller has a proof or a person's word."""
        session = self.held[remote]
        async with session.acting:
            await self._renewal(session).log_out(None)
            session.note_end("logout")
            await self._state(session)

    async def renew(self, remote: str, *, confirmed: bool) -> None:
        """End its pairing and begin a fresh one with a code. What others made is deleted only with
        a person's word (`confirmed`), else logged out. The caller has a proof for the end."""
        session = self.held[remote]
        async with session.acting:
            heard = None if session.fight else session.live
            renewal = self._renewal(session)
            if not confirmed and not self._may_replace(session):
                await renewal.log_out(heard)
                session.note_end("logout")
                await self._state(session)
                await self._connect(session, may_create=False)
                return
            session.renewing = True
            try:
                await renewal.take_away(heard)
                session = EvolutionSession(
                    *(remote, self.calls, session.adopted, False),
                    live=Live.MISSING,
                    gone=True,
                    owed=session.owed,
                    made=session.made,
                    renewing=True,
                    acting=session.acting,
                )
                self.held[remote] = session
                await self._connect(session, may_create=confirmed)
            finally:
                session.renewing = False

    async def qr(self, remote: str) -> Qr | None:
        """The code to scan now; a login begins for it where there is no pairing to lose."""
        session = self.held[remote]
        async with session.acting:
            await self._state(session)
            if session.needs_row:
                await self._row(session)
            if session.live in (Live.CLOSE, Live.CONNECTING) and session.paired is False:
                await self._log_in(session)
                await self._wait_for(session, lambda: session.qr is not None, CODE_WAIT)
            return session.qr

    async def pairing_code(self, remote: str, phone: str) -> Mapping[str, Any]:
        """A code to type on the phone of that number."""
        session = self.held[remote]
        async with session.acting:
            await self._state(session)
            await self._row(session)
            if session.asks_account(at_once=True):
                session.note_account(await self.calls.has_account(remote))
            if session.live is Live.OPEN or session.paired is not False:
                cause = "cannot get a pairing code: it waits for no scan"
                raise EngineError(cause, code="not_waiting")
            if session.live is Live.CONNECTING:
                # The number counts only when a login begins; there is no pairing to lose.
                await self._renewal(session).log_out(None)
                session.note_end("")
                session.note_live(Live.CLOSE)
            await self._log_in(session, phone)
            await self._wait_for(session, lambda: _typed(session) != "", PAIRING_WAIT)
            if not (code := _typed(session)):
                raise EngineError("cannot get a pairing code: none came in time", code="not_ready")
            left = session.qr.expires_in if session.qr is not None else 1.0
            return {"code": code, "expires_in": round(left, 1)}

    async def disconnect(self, remote: str) -> None:
        """Its server has no such request; what follows asks for a login."""

    async def new_keys(self, remote: str, peers: Sequence[str]) -> None:
        cause = "an Evolution server keeps the keys of its sessions by itself"
        raise EngineError(f"cannot make new keys of {remote}: {cause}", code="not_supported")

    async def command(
        self, remote: str, name: str, arguments: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        if name == "pairing_code":
            return await self.pairing_code(remote, phone_of(arguments))
        if name == "settings":
            return await self._settings(remote, arguments)
        if name == "delete":  # for good, by a person's word
            session = self.held[remote]
            async with session.acting:
                await self._renewal(session).delete()
                session.note_end("")
            return {}
        cause = "an Evolution server knows pairing_code, settings and delete"
        raise InvalidRequest(f"cannot {name!r:.40}: {cause}", field="name")

    async def _settings(self, remote: str, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make the changes, if any, and answer with all settings, by 2.x's names."""
        known = dict(zip(OPTIONS, self.calls.dialect.options, strict=True))
        for name, value in changes.items():
            if name not in known:
                cause = f"unknown, known are {', '.join(known)}"
                raise InvalidRequest(f"cannot set {name!r:.40}: {cause}", field=name[:40])
            if not isinstance(value, str if name == "msgCall" else bool):
                kind = "text" if name == "msgCall" else "true or false"
                raise InvalidRequest(f"cannot set {name}: it must be {kind}", field=name)
        body = self._renewal(self.held[remote]).whole_settings(
            {"settings": await self.calls.find("settings", remote)}
        )
        body |= {known[name]: value for name, value in changes.items()}
        if changes:
            await self.calls.set("settings", remote, body)
        return {"settings": {name: body[theirs] for name, theirs in known.items()}}

    async def close(self) -> None:
        await cancel(self._learning)
        await self.calls.http.close()

    def _renewal(self, session: EvolutionSession) -> Renewal:
        return Renewal(session, self.calls, self.folder / folder_name(session.name))

    async def _state(self, session: EvolutionSession) -> None:
        before, live = session.live, await self.calls.state(session.name)
        if live is Live.CLOSE and before in (Live.OPEN, Live.CONNECTING):
            # Between two tries to connect a server says `close` for a moment.
            await asyncio.sleep(LOOK_EVERY)
            live = await self.calls.state(session.name)
        session.note_live(live)
        for number in range(_LOOKS if session.is_unsteady else 0):
            await asyncio.sleep(LOOK_EVERY * (1 + number % 3 / 2))  # in no step with the logins
            session.note_live(await self.calls.state(session.name))

    async def _row(self, session: EvolutionSession) -> None:
        if not self.calls.dialect.old:
            at = boot_now()
            session.note_row(await self.calls.row(session.name), at)

    async def _prove(self, session: EvolutionSession, deep: bool) -> None:
        if session.alive is None:  # it tells whose it is since it opened
            await self._row(session)
        if session.fight or not (deep or session.alive is not True):
            return
        alive, opening = None, session.since
        if self.declared.prove and session.integration in BAILEYS:
            async with self._proofs:
                alive = await self.calls.query(session.name, session.account, QUERY_LIMIT)
        if session.since == opening and (alive is not None or session.alive is None):
            session.alive = alive is not False
        if alive is False:
            cause = "it says open and gives no answer"
            raise EngineError(f"cannot query WhatsApp through the session: {cause}", code="zombie")

    async def _missing_code(self, session: EvolutionSession) -> None:
        if session.code is not None or session.acting.locked() or session.refuse_login():
            return
        async with session.acting:
            try:
                await self._log_in(session)
            except ServerDown:
                raise
            except EngineError:
                return  # it changed since the look; the next one sees

    async def _connect(self, session: EvolutionSession, *, may_create: bool) -> None:
        await self._state(session)
        if session.live is Live.OPEN:
            return
        if session.live is Live.CONNECTING and session.paired is not False and not session.fight:
            return  # the server does so by itself
        if session.live is Live.MISSING:
            await self._create(session, may_create)
        elif session.live is Live.CLOSE and not session.end:
            await self._row(session)
            if session.asks_account(at_once=True):
                session.note_account(await self.calls.has_account(session.name))
        await self._log_in(session)
        # A slow server may have created it after our request had run out of time.
        await self._renewal(session).give_back()

    async def _create(self, session: EvolutionSession, may_create: bool) -> None:
        if session.adopted and not session.owed and not may_create:
            raise EngineError(
                f"cannot connect {session.name}: the server has no session of that name, and the"
                " agent, which did not make it, makes none in its place. To create it:"
                " `wa-agent ensure-healthy ID --yes`",
                code="remote_missing",
            )
        before, session.awaited = session.awaited, True
        try:
            await self._renewal(session).create()
        except ServerDown:
            raise
        except EngineError as error:
            session.awaited = False
            if session.paired or not (before and error.code == "remote_exists"):
                raise
        session.note_end("")
        session.note_live(Live.CLOSE)

    async def _log_in(self, session: EvolutionSession, phone: str = "") -> None:
        """Ask the server to connect it, or for the code that it shows: the same request. No other
        function sends it, for what it does depends on the moment at which it arrives."""
        if cause := session.refuse_login():
            raise _refused("ask to connect", session.name, cause)
        if session.live is not Live.CONNECTING:
            session.begin()
        shown = await self.calls.connect(session.name, phone)
        session.answered()
        session.note_shown(shown)

    async def _wait_for(
        self, session: EvolutionSession, wanted: Callable[[], bool], within: float
    ) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while not wanted() and session.live is Live.CONNECTING:
                    await asyncio.sleep(LOOK_EVERY)
                    await self._log_in(session)

    def _may_replace(self, session: EvolutionSession) -> bool:
        """Without a person's word: what the agent made. A 1.8 shows nothing that others put into a
        session, and one that hangs there comes back in no other way."""
        if session.is_ours or not self.calls.dialect.old or session.adopted:
            return session.is_ours
        if session.paired is None:
            raise EngineError(
                f"cannot renew {session.name}: the agent did not make it, and it may have a"
                " pairing. To end it all the same: `wa-agent ensure-healthy ID --yes`",
                code="pairing_kept",
            )
        return True

    def _detail(self, session: EvolutionSession) -> dict[str, Any]:
        # The list is so much newer than the state that the server has written its row.
        compared = session.row_at >= session.since + SETTLED
        proxy = session.row.proxy if session.row and not self.calls.dialect.old else None
        disagrees = session.disagreement if compared else ""
        return {"compared": compared, "proxy": proxy, "disagrees": disagrees}


def _typed(session: EvolutionSession) -> str:
    return session.code.pairing_code if session.code is not None else ""


def _refused(what: str, name: str, cause: str) -> EngineError:
    return EngineError(f"cannot {what} {name}: {cause}", code="remote_refused")
