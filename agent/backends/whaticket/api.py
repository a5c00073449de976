"""A whaticket server: what a Backend and its seats ask of it, its logs and its keys."""

import asyncio
import json
import os
import shlex
import signal
import time
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent import clock, errors, files, log
from agent.backends.backend import Seat, crashed
from agent.backends.http import cannot, read_json, segment
from agent.backends.whaticket import calls, contract, keys, logs
from agent.config.config import BackendDeclaration
from agent.core.crypto_patterns import CryptoPattern
from agent.core.words import Happening, RemoteSession, ServerClaim
from agent.engines import base, tasks
from agent.engines.baileys.session_state import PATTERN_WORDS

POLL, RATE = 0.5, 2 << 20
"""Seconds between two readings of the logs, and the most bytes a second."""
SAVE_EVERY, COMMAND_AGAIN = 5.0, 10.0
WINDOW = 300.0
"""Seconds after which an error is no news."""
MOST_ERRORS = 20
"""The most errors of a session in one reading; the agent counts to five in five minutes."""
CLOSE_WITHIN = 20.0
"""Seconds that the agent's stop waits for a repair; systemd kills the agent after 90 s."""


class Whaticket:
    """A ServerApi. Made inside a running loop; `close` ends it."""

    list_every = 5.0

    def __init__(
        self, declared: BackendDeclaration, folder: Path, patterns: Sequence[CryptoPattern]
    ) -> None:
        self.declared, self.folder = declared, folder
        self.calls = calls.WhaticketCalls(declared)
        self.keys = keys.open_keys(declared, folder / "removed")
        self.held: dict[str, Session] = {}
        self.owners = calls.Owners()
        self.logs = logs.open_logs(self.calls.own, patterns, read_json(folder / "logs.json"), 0)
        self.rows: dict[str, calls.Row] | None = None
        """The last list; None before the first one."""
        self._troubles: dict[str, str] = {}
        """The troubles of the logs and of the folders of keys, by what found them."""
        self._tasks = tasks.Tasks(crashed, expected=(errors.EngineError,))
        if self.logs.patterns:
            self._tasks.start(self._follow(), "logs")
        for entry in self.calls.own.logs:
            if entry.startswith("command:"):
                self._tasks.start(self._run(entry.removeprefix("command:")), "log command")
        # Who asked for one gets its error.
        self.repairs = tasks.Tasks(crashed, expected=(Exception,))

    async def sessions(self) -> tuple[ServerClaim, tuple[RemoteSession, ...]]:
        at = clock.boot_now()
        rows, seconds = await self.calls.rows()
        self.rows = {row.id: row for row in rows}
        self.owners.know({row.id: row.name for row in rows})
        for name, session in self.held.items():
            row = self.row_of(name, session.known.id)
            if row is not None or session.known.row is not None:  # else a look asks for it
                session.known.note_row(row, at)
        sessions = tuple(RemoteSession(it.id, it.status, it.number, it.name) for it in rows)
        self._troubles["keys"] = await tasks.in_thread(self._trouble_of_folders)
        troubles = "; ".join(filter(None, self._troubles.values()))
        return ServerClaim(True, "", troubles, "", seconds, len(rows)), sessions

    def row_of(self, name: str, id: str) -> calls.Row | None:
        """The list's row of a session. `id`: its id until now, which counts as long as that row has
        its name; then no other one of that name matters."""
        rows = self.rows or {}
        found = rows.get(id), rows.get(self.owners.ids.get(name, ""))
        return next((row for row in found if row and name in (row.id, row.name)), None)

    def _trouble_of_folders(self) -> str:
        """Why a repair could not remove keys: no connected session has a folder that the agent may
        write in. "" = one has."""
        folder, rows = self.calls.own.auth_folder, (self.rows or {}).values()
        ids = [it.id for it in rows if folder and it.connected and contract.is_safe(it.id)]
        paths = [folder.replace("{id}", id) for id in ids]
        good = not paths or any(os.access(path, os.R_OK | os.W_OK | os.X_OK) for path in paths)
        return "" if good else f"cannot write in {paths[0]}: it is absent or closed to the agent"

    def away(self) -> None:
        """Note that the server is away: the rows stay as old as they are."""

    async def hold(self, seat: Seat) -> "Session":
        segment(remote := seat.remote)
        useless = () if self.calls.own.hang_up is not None else ("reconnect",)
        own, prove = seat.backend.shared.instances[seat.id], self.declared.prove
        paired, account, adopted = own.record.paired, own.record.account, own.instance.adopted
        known = calls.WhaticketSession(remote, adopted, paired, account, prove, useless)
        self.held[remote] = session = Session(self, known, seat)
        return session

    async def close(self) -> None:
        """Close. A repair that has begun may take a session up again, so that none stays down."""
        await self.repairs.wait(CLOSE_WITHIN)
        await self.repairs.cancel()
        await self._tasks.cancel()
        if self.logs.patterns:
            await tasks.in_thread(self._save)
            self.logs.close()
        await self.calls.close()

    # logs

    async def _follow(self) -> None:
        saved = time.monotonic()
        while True:
            begun = time.monotonic()
            if self.held and self.rows is not None:  # before, no name in the log is known
                self._take(await tasks.in_thread(self.logs.read, int(RATE * POLL)))
            troubles = [*self.logs.lost[-3:], self.logs.trouble]
            self._troubles["files"] = "; ".join(filter(None, troubles))
            if begun - saved >= SAVE_EVERY:
                saved = begun
                await tasks.in_thread(self._save)
            await asyncio.sleep(max(POLL, time.monotonic() - begun))  # half a processor at most

    async def _run(self, text: str) -> None:
        words = shlex.split(text)
        while True:
            cause = f"cannot read the log by {words[0]}: it ended"
            try:
                await self._run_once(words)
            except OSError as error:
                cause = f"cannot run {words[0]}: {error.strerror}"
            self._troubles["command"] = cause
            await asyncio.sleep(COMMAND_AGAIN)

    async def _run_once(self, words: Sequence[str]) -> None:
        """Read a command's output to the end, at most `RATE` bytes a second; its pipe fills up."""
        to, reader, rest = asyncio.subprocess, self.logs.reader(), b""
        process = await asyncio.create_subprocess_exec(
            *words, stdin=to.DEVNULL, stdout=to.PIPE, stderr=to.STDOUT, start_new_session=True
        )
        assert process.stdout is not None
        try:
            while not process.stdout.at_eof():
                chunk = b""
                with suppress(TimeoutError):
                    async with asyncio.timeout(logs.QUIET):
                        chunk = await process.stdout.read(logs.CHUNK // 8)
                *lines, rest = (rest + chunk)[-logs.LONGEST_LINE :].split(b"\n")
                found = [it for line in lines for it in reader.feed(line, time.time())]
                self._take(found if chunk else reader.flush())
                await asyncio.sleep(len(chunk) / RATE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    def _save(self) -> None:
        try:
            files.make_folder(self.folder)
            positions = json.dumps(self.logs.positions() or dict(self.logs.marks))
            files.write_whole(self.folder / "logs.json", positions.encode())
        except OSError as error:
            log.warning("cannot write %s: %s", self.folder / "logs.json", error.strerror)

    def _take(self, all_found: list[logs.Found]) -> None:
        by_id = {it.known.id: it for it in self.held.values() if it.known.id}
        now, nameless, shown = time.time(), 0, Counter[str]()
        for id, found in self.owners.attribute([it for it in all_found if now - it.at <= WINDOW]):
            session = by_id.get(id)
            if isinstance(found.it, logs.Turn):
                if session is not None:
                    session.known.note_turn(found.it)
            elif session is not None:
                shown[session.name] += 1
                if shown[session.name] <= MOST_ERRORS:
                    words = PATTERN_WORDS.get(found.it.name, found.it.name)
                    detail = {"text": words, "peer": found.it.peer, "pattern": found.it.name}
                    session.seat.happened(Happening("crypto_error", detail))
            elif not id:
                nameless += 1
        # libsignal's own lines name no session; the server's line about the message does.
        if nameless or shown:
            words = f"{nameless} errors about keys in its logs name no session"
            self._troubles["owners"] = "" if shown else words


class Session:
    def __init__(self, server: Whaticket, known: calls.WhaticketSession, seat: Seat) -> None:
        self._server, self.known, self.name, self.seat = server, known, known.name, seat
        self._calls, self._keys, self._own = server.calls, server.keys, server.calls.own
        self._acting = asyncio.Lock()

    async def look(self, *, deep: bool = False) -> None:
        known, at = self.known, clock.boot_now()
        id = await self._find()
        known.note_row(await self._calls.state(id) if id else None, at)
        if known.row is not None and not known.row.connected:
            known.note_keys(await tasks.in_thread(self._keys.look, known.id))

    async def connect(self) -> None:
        if not await self._find():
            await self._create()
        await (await self._started()).begin()
        self.known.hung_up = False

    async def disconnect(self) -> None:
        """Disconnect the session; the pairing stays."""
        way = await self._started()
        self.known.hung_up = True
        await self._alone("disconnect", way.go_down())

    async def restart(self) -> None:
        way = await self._started()

        async def work() -> None:
            await way.must_have_whole_creds()
            row = await self._calls.look(way.id)
            if self._own.hang_up is not None:
                await way.go_down()
                await way.begin()
            else:
                again = self._own.route("restart") is not None and not row.down
                do = "restart" if again else "start"
                await self._calls.do(f"{do} {way.id}", do, way.id)

        await self._alone("restart", work())

    async def logout(self) -> None:
        """End the session's pairing. The caller has a proof or a person's word."""
        way = await self._started("log out")
        try:
            await self._calls.do(f"log out {way.id}", "logout", way.id)
        except errors.EngineError as error:
            if calls.NOT_RUNNING not in str(error):
                raise
            return  # it is not in the server's memory: there is nothing to log out
        self.known.logged_out()

    async def must_hang(self) -> None:
        """EngineError if its server, which told nothing for a minute, says that it is connected."""
        if clock.boot_now() - self.known.row_at > 60.0:
            await self.look()
            if self.known.row is not None and self.known.row.connected:
                raise cannot(f"end the pairing of {self.name}", "it is connected", "busy")

    async def renew(self, *, confirmed: bool) -> None:
        """End its pairing and begin a fresh one with a code; the server's row stays. The caller
        has a proof for the end, or a person's word."""
        way = await self._started("renew")

        async def work() -> None:
            if self._own.hang_up is None or not self._keys.stores:
                if records := await tasks.in_thread(self._keys.all, way.id):
                    keep, why = self._keys.shelf.keep, "the session starts over"
                    await tasks.in_thread(keep, way.id, why, records, whole=True)
                await self._calls.do(f"renew {way.id}", "new_qr", way.id)
            else:
                await way.start_over()
            self.known.logged_out()
            await way.wait("get a code of", lambda row: row.asks)

        await self._alone("renew", work())

    async def qr(self) -> base.Qr | None:
        way, known = await self._started(), self.known
        if known.row is not None and known.row.down and not known.paired:
            # The code was not scanned in time: the server shows codes again after a start.
            await way.begin()
            row = await way.wait("get a code of", lambda row: row.asks or row.connected)
            known.note_row(row, clock.boot_now())
        return known.code()

    async def new_keys(self, peers: Sequence[str]) -> None:
        """Take the records of these peers, and the damaged ones, out with a backup."""
        await self._alone("regenerate keys", (await self._started()).regenerate(peers))

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        if name == "removed":  # oldest first, also of one that the server has no more
            removals = await tasks.in_thread(self._keys.shelf.all, await self._find() or self.name)
            return {"removed": [removal.shown() for removal in removals]}
        if name == "restore_removed":
            way = await self._started()
            await self._alone("put keys back", way.put_back(arguments.get("name")))
            return {"name": arguments.get("name")}
        cause = "a whaticket server knows removed and restore_removed"
        raise errors.InvalidRequest(f"cannot {name!r:.40}: {cause}", field="name")

    async def _find(self) -> str:
        """Return the server's id of the session; "" = there is none."""
        known, server = self.known, self._server
        if server.rows is None and not self.name.isdigit():
            await server.sessions()
        default = self.name if self.name.isdigit() else ""
        known.id = row.id if (row := server.row_of(self.name, known.id)) else default
        if not known.id and any(row.name == self.name for row in (server.rows or {}).values()):
            what = f"tell which session is {self.name!r:.60}"
            raise cannot(what, "several have that name", "remote_ambiguous")
        return known.id

    async def _create(self) -> None:
        what = f"create {self.name!r:.60}"
        if self.known.adopted:  # what others made is not made again in its place
            raise cannot(what, f"{calls.UNKNOWN}, and the agent did not make it", "remote_missing")
        await self._calls.do(what, "create", "", {"name": self.name})
        await self._server.sessions()

    async def _started(self, end: str = "") -> calls.DownAndUp:
        """The steps of its repairs, after a look; EngineError if the server lacks it, or answers
        for another session. `end`: what ends its pairing. EngineError `pairing_kept`: it was
        connected, or became another account's, since that was decided."""
        known, was_due, account = self.known, self.known.is_due, self.known.account
        await self.look()
        if known.row is None:
            raise cannot(f"find {self.name!r:.60}", calls.UNKNOWN, "remote_missing")
        if end and ((was_due and not known.is_due) or account not in ("", known.account)):
            cause = "it is connected again, or with another account; its pairing is kept. To end it"
            cause += " all the same, ask again"
            raise cannot(f"{end} {self.name}", cause, "pairing_kept")

        def report(step: str) -> None:
            self.seat.happened(Happening("repair_step", {"text": step}))

        def went_down() -> None:
            known.hung_up = True

        return calls.DownAndUp(self._calls, self._keys, known.id, report, went_down)

    async def _alone(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        """Do one work at a time, and to its end, also if the caller is cancelled."""
        if self._acting.locked():
            work.close()
            raise cannot(what, "another repair of it is under way", "busy")

        async def alone() -> None:
            async with self._acting:
                await work

        await asyncio.shield(self._server.repairs.start(alone(), what))
