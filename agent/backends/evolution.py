"""Evolution API 1.8 and 2.x: what a Backend and its seats ask of a server.

A renewal replaces a session there: back up its row and settings, delete it, create it. That ends
its pairing, and the server deletes its messages and contacts. Token, settings, webhook and proxy
are given back, also after the agent or the server died in between. One folder for each session: a
backup for each deletion, the same as `removal.json` from the deletion until all is given back, and
`made` if the agent made it on the server. Backups have the session's token: mode 0600.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent import clock, errors, files, log
from agent.backends.backend import Look, Seat
from agent.backends.evolution_calls import EvolutionCalls, Live, folder_name
from agent.backends.evolution_session import EvolutionSession
from agent.backends.http import Http, ServerDown, cannot, naming, read_json
from agent.config.config import BackendDeclaration
from agent.core.words import Address, RemoteSession, ServerClaim
from agent.engines import base, tasks, whatsapp

BAILEYS = ("", "WHATSAPP-BAILEYS")
"""Integrations whose sessions can be asked for proof."""
NO_ROUTE = (
    "the server, or a proxy before it, lets no POST /chat/fetchBusinessProfile through to WhatsApp,"
    " so whether its open sessions are connected is not proved; let that route pass, or set prove ="
    " false for this [[backend]] in agent.toml to believe what the server says"
)
PROOF_HOLDS = 55.0
"""Seconds after which a look asks for a proof again: a session is looked at every 30 s, and may be
connected by a proof that is 90 s old."""
QUERY_LIMIT = 4.0
"""Seconds that WhatsApp may take to answer the query of a proof."""
ONE_LOGIN = 10.0
"""Seconds after a login was asked for in which a restart is the same wish: two would fight."""
CODE_WAIT, PAIRING_WAIT = 3.0, 7.0
"""Seconds that a request for a code waits for the first one; for one to type on a phone."""

LOGOUT_WAIT = 5.0
"""Seconds that a logout may take after the server answered it."""
REMOVAL_WAIT, LOOK_EVERY = 45.0, 0.3
WHATSAPP = Address("https://web.whatsapp.com/")
LOOK_LIMIT, LOOKS_APART, CODE_AFTER = 3.0, 2.0, 2.0
"""Seconds that a look at WhatsApp may take, between two of them, and from a restart to the look at
the code that it brings."""


class Evolution:
    """A ServerApi. Made inside a running loop; `close` ends it."""

    def __init__(self, declared: BackendDeclaration, folder: Path) -> None:
        """Make the calls. `folder`: for backups of what is deleted on the server."""
        self.declared, self.folder = declared, folder
        self.calls = EvolutionCalls(Http(declared, {"apikey": declared.key}))
        self.held: dict[str, Session] = {}
        self.list_every = 5.0
        # Dead sessions hold their turns long, and slow ones longer: at most a quarter of all
        # requests are first proofs, a quarter those of slow sessions, a quarter the other proofs.
        pools = [asyncio.Semaphore(max(1, declared.parallel // 4)) for _ in range(3)]
        self.first_proofs, self.next_proofs, self.slow_proofs = pools
        self._learning: asyncio.Task[None] | None = None
        self.watching: asyncio.Task[None] | None = None

    async def sessions(self) -> tuple[ServerClaim, tuple[RemoteSession, ...]]:
        at = clock.boot_now()
        if self._learning is None:
            # It may take seconds: the list does not wait for it.
            self._learning = asyncio.create_task(self.calls.learn_version(), name="version")
        rows, seconds = await self.calls.rows()
        self.list_every = 30.0 if self.calls.old else 5.0
        for name, session in self.held.items():
            session.known.note_row(rows.get(name), at)
        sessions = tuple(RemoteSession(it.name, it.status, it.account) for it in rows.values())
        told = [it.known.unproved for it in self.held.values() if it.known.live is Live.OPEN]
        warning = NO_ROUTE if told and all(told) else ""
        return ServerClaim(True, "", warning, self.calls.version, seconds, len(rows)), sessions

    def away(self) -> None:
        if not tasks.runs(self._learning):
            self._learning = None  # another version may come back
        for session in self.held.values():
            session.known.away()

    async def hold(self, seat: Seat) -> "Session":
        remote, own = seat.remote, seat.backend.shared.instances[seat.id]
        paired, account = own.record.paired or None, own.record.account
        known = EvolutionSession(remote, self.calls, own.instance.adopted, paired, account)
        session = Session(self, known, seat)
        known.owed = bool(await tasks.in_thread(session.read))
        known.made = await tasks.in_thread((session.folder / "made").exists)
        self.held[remote] = session
        return session

    async def close(self) -> None:
        await tasks.cancel(self._learning, self.watching)
        await self.calls.http.close()

    async def watch_whatsapp(self, look: Look) -> None:
        """While a session hangs that was never paired, and has no login to disturb: once WhatsApp
        answers again, its server's next try, up to 30 s away, need not be waited for."""
        away = False
        while hung := [it for it in self.held.values() if it.known.hangs]:
            was_away, away = away, bool(await look(WHATSAPP, LOOK_LIMIT))
            if was_away and not away:
                await asyncio.gather(*(it.try_again() for it in hung))
            await asyncio.sleep(LOOKS_APART)


class Session:
    def __init__(self, server: Evolution, known: EvolutionSession, seat: Seat) -> None:
        self._server, self._calls, self._seat = server, server.calls, seat
        self.known, self.name = known, known.name
        self._acting = asyncio.Lock()
        """The lock of each action: a request for a code begins a login if the session closed."""
        self.folder = server.folder / folder_name(known.name)

    async def look(self, *, deep: bool = False) -> None:
        """Look. EngineError `zombie`: the session says open, and WhatsApp does not answer by it."""
        if self.known.renewing:
            return
        await self._refresh()
        if self.known.live is Live.OPEN and not await self._prove(deep):
            raise cannot("query WhatsApp through it", "it says open and gives no answer", "zombie")
        await self._ask_account()
        if self.known.live is Live.CONNECTING and self.known.paired is False:
            await self._missing_code()

    async def connect(self) -> None:
        """Begin a login where the server does not do so by itself. A session that the server lost
        is made, unless others made it."""
        async with self._acting:
            await self._connect()

    async def restart(self) -> None:
        """Have the server connect the session again with its pairing."""
        known = self.known
        async with self._acting:
            if clock.boot_now() - known.begun_at < ONE_LOGIN:
                return
            heard = known.live
            await self._state()
            if known.live is Live.OPEN and heard not in (None, Live.OPEN):
                return  # it came back since this was decided
            # In `close` a restart is refused, and a connect does the same.
            if known.live not in (Live.CLOSE, Live.MISSING):
                if cause := known.refuse_login(restart=True):
                    raise cannot(f"restart {self.name}", cause, "remote_refused")
                if await self._calls.restart(self.name):
                    known.begin()
                    return
                await self._state()
            await self._connect()

    async def logout(self) -> None:
        """End the session's pairing. The caller has a proof or a person's word."""
        async with self._acting:
            await self._log_out(None)

    async def renew(self, *, confirmed: bool) -> None:
        """End its pairing and begin a fresh one with a code. What others made is deleted only with
        a person's word (`confirmed`), else logged out. The caller has a proof for the end."""
        async with self._acting:
            known, heard = self.known, self.known.live
            if not confirmed and (known.adopted or not known.made):
                await self._log_out(heard)
                await self._connect()
                return
            known.renewing = True
            try:
                await self._take_away(heard)
                adopted, owed, made = known.adopted and not confirmed, known.owed, known.made
                self.known = known = EvolutionSession(self.name, self._calls, adopted, False)
                known.owed, known.made, known.renewing = owed, made, True
                known.live, known.gone = Live.MISSING, True
                await self._connect()
            finally:
                known.renewing = False

    async def qr(self) -> base.Qr | None:
        """Return the code to scan now; a login begins for it if there is no pairing to lose."""
        async with self._acting:
            await self._refresh()
            if self.known.live in (Live.CLOSE, Live.CONNECTING) and self.known.paired is False:
                await self._log_in()
                await self._wait_for_code(CODE_WAIT)
            return self.known.qr

    async def disconnect(self) -> None:
        """Do nothing: the server has no such request, and what follows asks for a login."""

    async def new_keys(self, peers: Sequence[str]) -> None:
        cause = "an Evolution server keeps the keys of its sessions by itself"
        raise cannot(f"make new keys of {self.name}", cause, "not_supported")

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        if name == "pairing_code":
            return await self._pairing_code(whatsapp.phone_of(arguments))
        if name == "delete":  # for good, by a person's word
            async with self._acting:
                if await self._calls.state(self.name) is not Live.MISSING:
                    await self._back_up(rehearse=False)  # which stays for a person
                    await self._remove(None, {})
                await tasks.in_thread(self._write, {"removal.json": None, "made": None})
                self.known.owed = self.known.made = False
                self.known.note_end("")
            return {}
        cause = "an Evolution server knows pairing_code and delete"
        raise errors.InvalidRequest(f"cannot {name!r:.40}: {cause}", field="name")

    async def _pairing_code(self, phone: str) -> Mapping[str, Any]:
        """Return a code to type on the phone of that number."""
        known = self.known
        async with self._acting:
            await self._state()
            await self._row()
            await self._ask_account(at_once=True)
            if known.live is Live.OPEN or known.paired is not False:
                raise cannot("get a pairing code", "it waits for no scan", "not_waiting")
            if known.live is Live.CONNECTING:
                # The number counts only when a login begins.
                await self._log_out(known.live, ended="")
            await self._log_in(phone)
            await self._wait_for_code(PAIRING_WAIT, to_type=True)
            if known.code is None or not known.code.pairing_code:
                raise cannot("get a pairing code", "none came in time", "not_ready")
            left = known.qr.expires_in if known.qr is not None else 1.0
            return {"code": known.code.pairing_code, "expires_in": round(left, 1)}

    # looks

    async def _state(self) -> None:
        before, live = self.known.live, await self._calls.state(self.name)
        if live is Live.CLOSE and before in (Live.OPEN, Live.CONNECTING):
            # Between two tries to connect a server says `close` for a moment.
            await asyncio.sleep(LOOK_EVERY)
            live = await self._calls.state(self.name)
        self.known.note_live(live)

    async def _row(self) -> None:
        if not self._calls.old:
            at = clock.boot_now()
            self.known.note_row(await self._calls.row(self.name), at)

    async def _refresh(self) -> None:
        await self._state()
        it = self.known
        down = it.live is Live.CLOSE or (it.live is Live.CONNECTING and it.paired is not True)
        if down and it.row_at < it.since:  # it may tell whether a pairing stands, or why it closed
            await self._row()

    async def _ask_account(self, *, at_once: bool = False) -> None:
        if self.known.asks_account(at_once=at_once):
            self.known.note_account(await self._calls.has_account(self.name))

    async def _prove(self, deep: bool, limit: float = QUERY_LIMIT) -> bool:
        """False if WhatsApp gives no answer through it."""
        known = self.known
        if known.alive is None:  # it tells whose it is since it opened
            await self._row()
        if known.alive is True and clock.boot_now() - known.proved_at < PROOF_HOLDS and not deep:
            return True
        alive, opening, at, server = None, known.since, clock.boot_now(), self._server
        if server.declared.prove and (known.row is None or known.row.integration in BAILEYS):
            proofs = server.next_proofs if known.alive else server.first_proofs
            async with server.slow_proofs if self._seat.proof_took >= QUERY_LIMIT else proofs:
                at = clock.boot_now()
                slack = self._seat.backend.slack + 2 * self._seat.proof_took
                alive = await self._calls.query(self.name, known.account, limit + slack)
            known.unproved = NO_ROUTE if alive is None else ""
            # The query after one without an answer waits longer.
            self._seat.proof_took = clock.boot_now() - at if alive else QUERY_LIMIT
        if known.since == opening and (alive is not None or known.alive is not False):
            known.alive, known.proved_at = alive is not False, at
        return alive is not False

    async def must_hang(self) -> None:
        """EngineError if WhatsApp answers through it within a minute: a slow session keeps its
        pairing."""
        hangs = self.known.live is Live.OPEN and not self.known.alive
        if hangs and await self._prove(True, limit=60.0):
            raise cannot(f"end the pairing of {self.name}", "it answers, only slowly", "busy")

    async def try_again(self) -> None:
        with suppress(errors.EngineError):
            await self.look()
            async with self._acting:
                if not self.known.hangs:
                    return
                if self._calls.old:  # it ignores a restart
                    await self._log_out(Live.CONNECTING, ended="")
                    await self._log_in()
                elif await self._calls.restart(self.name):
                    self.known.begin()
                    await asyncio.sleep(CODE_AFTER)
            await self._seat.ask()

    async def _missing_code(self) -> None:
        if self.known.code is not None or self._acting.locked() or self.known.refuse_login():
            return
        async with self._acting:
            try:
                await self._log_in()
            except ServerDown:
                raise
            except errors.EngineError:
                return  # it changed since the look; the next one sees
        if self.known.hangs and not tasks.runs(self._server.watching):
            work = self._server.watch_whatsapp(self._seat.backend.shared.look)
            self._server.watching = asyncio.create_task(work, name="looks at WhatsApp")

    # logins

    async def _log_out(self, heard: Live | None, *, ended: str = "logout") -> None:
        """End its pairing, and leave it on the server with all that it has there. `heard`: the
        state by which that was decided; `ended`: "" where it has no pairing to lose."""
        live = await self._calls.state(self.name)
        self._refuse_kept(live, heard)
        if live in (Live.OPEN, Live.CONNECTING):
            await self._calls.logout(self.name)
            # The answer comes first, and says success also where the server does nothing: a paired
            # session that is not connected cannot tell WhatsApp about it, and stays as it is.
            if not await self._becomes(Live.CLOSE, LOGOUT_WAIT):
                cause = f"it has not closed after {LOGOUT_WAIT:g} s"
                raise cannot(f"log {self.name} out", cause, "no_effect")
        self.known.note_end(ended)
        await self._state()

    async def _connect(self) -> None:
        known = self.known
        await self._state()
        if known.live is Live.OPEN:
            return
        if known.live is Live.CONNECTING and known.paired is not False:
            return  # the server does so by itself
        if known.live is Live.MISSING:
            await self._create()
        elif known.live is Live.CLOSE and not known.end:
            await self._row()
            await self._ask_account(at_once=True)
        await self._log_in()
        # A slow server may have created it after our request had run out of time.
        await self._give_back()

    async def _create(self) -> None:
        if self.known.adopted and not self.known.owed:
            cause = (
                "the server has no session of that name, and the agent, which did not make it,"
                " makes none in its place. To create it: `wa-agent ensure-healthy ID --yes`"
            )
            raise cannot(f"connect {self.name}", cause, "remote_missing")
        # With what an unfinished renewal backed up, else with nothing set.
        row = (await tasks.in_thread(self.read)).get("row")
        await tasks.in_thread(self._write, {"made": b""})
        self.known.made = True
        await self._calls.create(self.name, row)
        self.known.note_end("")
        self.known.note_live(Live.CLOSE)

    async def _log_in(self, phone: str = "") -> None:
        """Ask the server to connect it, or for the code that it shows: the same request. No other
        function sends it, for what it does depends on the moment at which it arrives."""
        if cause := self.known.refuse_login():
            raise cannot(f"ask to connect {self.name}", cause, "remote_refused")
        if self.known.live is not Live.CONNECTING:
            self.known.begin()
        shown = await self._calls.connect(self.name, phone)
        self.known.answered()
        self.known.note_shown(shown)

    async def _wait_for_code(self, within: float, *, to_type: bool = False) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self.known.live is Live.CONNECTING:
                    if (it := self.known.code) and (it.pairing_code if to_type else it.code):
                        return
                    await asyncio.sleep(LOOK_EVERY)
                    await self._log_in()

    # a renewal

    async def _take_away(self, heard: Live | None) -> None:
        """Delete the session after a backup. `heard`: the state by which that was decided."""
        live = await self._calls.state(self.name)
        if live is Live.MISSING:
            return
        if not self.known.owed:  # else a first backup has what may be half deleted by now
            backup = await self._back_up(rehearse=live is not Live.UNLOADED)
        elif await self._becomes(Live.MISSING, LOGOUT_WAIT):
            return
        else:
            backup = await tasks.in_thread(self.read)
        await self._remove(heard, backup)

    async def _give_back(self) -> None:
        """Set what an unfinished renewal backed up and `create` cannot set."""
        if not (session := await tasks.in_thread(self.read)):
            return
        for what, body in self._calls.settable(session).items():
            try:
                await self._calls.set(what, self.name, body)
            except ServerDown:
                raise
            except errors.EngineError as error:
                # It is there and can be scanned; deleting it once more changes nothing.
                log.warning("%s: the backup stays in %s", error, self.folder)
        await tasks.in_thread(self._write, {"removal.json": None})
        self.known.owed = False

    async def _back_up(self, *, rehearse: bool) -> dict[str, Any]:
        """`rehearse`: set the present values again, for the server would refuse the same after the
        deletion, and wait until it can create sessions at all."""
        name = self.name
        session = {"remote": name, "row": await self._calls.raw_row(name)}
        session |= {what: await self._calls.find(what, name) for what in ("settings", "webhook")}
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        backup = f"{stamp}-{time.time_ns() % 10**9:09}.json"
        await tasks.in_thread(self._write, {backup: json.dumps(session).encode()})
        if await tasks.in_thread(read_json, self.folder / backup) != session:
            raise cannot(f"back up {name}", "it reads differently", "backup_failed")
        if rehearse:
            if self._calls.old:
                await self._calls.rows()
            for what, body in self._calls.settable(session).items():
                await self._calls.set(what, name, body)
        return session

    async def _remove(self, heard: Live | None, backup: Mapping[str, Any]) -> None:
        """Remove the session. `backup`: of one that is created again."""
        calls, name = self._calls, self.name
        live = await calls.state(name)
        self._refuse_kept(live, heard)
        if live is Live.OPEN or (live is Live.CONNECTING and calls.old):
            await calls.logout(name)
            if not await self._becomes(Live.CLOSE, LOGOUT_WAIT) and live is Live.CONNECTING:
                # Measured on 1.8.6: the connection of what is deleted now goes on, reads the keys
                # of the next session of that name, and both replace each other without an end.
                cause = "WhatsApp does not answer its connection, which Evolution API 1.8 would"
                cause += " keep beside the new session's; try again later, or restart the server"
                raise cannot(f"remove {name} now", cause, "no_effect")
        if backup:
            await tasks.in_thread(self._write, {"removal.json": json.dumps(backup).encode()})
            self.known.owed = True
        await calls.delete(name)
        if not await self._becomes(Live.MISSING, REMOVAL_WAIT):
            raise cannot(f"delete {name}", f"it is there after {REMOVAL_WAIT:g} s", "timeout")

    def _refuse_kept(self, live: Live, heard: Live | None) -> None:
        back = live is Live.OPEN and heard not in (None, Live.OPEN)
        if live is not Live.MISSING and (back or heard is Live.MISSING):
            cause = f"its server has it again, and says {live}; the pairing is kept. To end it"
            cause += " all the same, ask again"
            raise cannot(f"renew {self.name}", cause, "pairing_kept")

    async def _becomes(self, wanted: Live, within: float) -> bool:
        """True once two looks find `wanted`: between two tries it is `close` for a moment."""
        deadline, seen = time.monotonic() + within + self._seat.slack, 0
        while seen < 2:
            live = await self._calls.state(self.name)
            seen = seen + 1 if live is wanted else 0
            if live is Live.MISSING or time.monotonic() > deadline:
                return live is Live.MISSING or seen > 1
            await asyncio.sleep(LOOK_EVERY)
        return True

    # files

    def _write(self, contents: Mapping[str, bytes | None]) -> None:
        """Write files; None removes one. EngineError: a file is not written, so delete nothing."""
        with naming(f"write {self.folder}", "backup_failed"):
            files.make_folder(self.folder)
            for name, content in contents.items():
                if content is not None:
                    files.write_whole(self.folder / name, content)
                else:
                    (self.folder / name).unlink(missing_ok=True)

    def read(self) -> dict[str, Any]:
        return read_json(self.folder / "removal.json")
