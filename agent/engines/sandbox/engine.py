"""The sandbox's engine: logs in, pairs, syncs, stays connected, and says what it sees."""

import asyncio
import binascii
import gc
import os
import time
import zlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.clock import boot_now
from agent.core.words import PASSKEY_REQUIRED, Claim, ConnectionStatus, Happening
from agent.engines.base import ProbeAnswer, Qr, Reporter
from agent.engines.sandbox import rules, server
from agent.engines.tasks import Tasks, cancel, runs
from agent.errors import EngineError, InvalidRequest, cause_of

UNREADABLE = "session_unreadable"
NOT_READ = rules.SessionFile("")


class SavedSession:
    """Reads, changes and saves one folder's session: a file of a few hundred bytes, so the worker
    waits for its disk."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, NOT_READ

    def load(self) -> None:
        """Take what the file says; SessionDamagedError leaves nothing in memory."""
        try:
            session = rules.read_session(self.folder)
            if self.now.paired and (session is None or not session.paired):
                raise rules.SessionDamagedError("the file of a paired session is gone")
        except rules.SessionDamagedError:
            self.now = NOT_READ
            raise
        except OSError as error:
            # Not damage: a matter of rights must not cost the session.
            why = f"cannot read {self.folder / rules.NAME}: {cause_of(error)}"
            raise EngineError(why, code=UNREADABLE) from error
        if session is None:
            self._write(rules.SessionFile(os.urandom(8).hex()))
        else:
            self.now = session

    def pair(self, account: str) -> None:
        """Pair, on the disk first: a pairing that the next run would not know is none."""
        self._write(self.now._replace(paired=True, account=account))

    def unpair(self) -> None:
        """Unpair, on the disk first: a disk that takes no writes ends no pairing."""
        if self.now is NOT_READ:
            raise EngineError("cannot use the session: its file was not read", code="no_session")
        self._write(self.now._replace(paired=False, account=""))

    def save(self) -> None:
        """Write what is known; what could not be read is left as it is, for the vault."""
        if self.now is not NOT_READ:
            self._write(self.now)

    def _write(self, session: rules.SessionFile) -> None:
        with rules.saving(f"save {self.folder}"):
            rules.write_session(self.folder, session)
        self.now = session


Status = ConnectionStatus
VERSION = "1"
"""Version of the plays that this engine knows; no WhatsApp behind it could have one."""


def open_engine(folder: Path, settings: Mapping[str, Any], reporter: Reporter) -> "SandboxEngine":
    return SandboxEngine(folder, rules.read_settings(settings), reporter)


class SandboxEngine:
    """One session. Its tasks: a login, the traffic of a connection, the faults."""

    def __init__(self, folder: Path, settings: rules.SandboxSettings, reporter: Reporter) -> None:
        self._settings, self._reporter, self._saved = settings, reporter, SavedSession(folder)
        self._claim = Claim(Status.INITIALIZING, phase="process")
        self._stopping = False
        self._login: asyncio.Task[None] | None = None
        self._traffic: asyncio.Task[None] | None = None
        # An error that a task does not catch ends the worker.
        self._tasks = Tasks(reporter.crashed)
        self._faults = server.Faults(folder)
        self._server = server.Server(settings, self._faults)
        self._code: Qr | None = None
        self._code_until, self._scanned = 0.0, asyncio.Event()
        self._leak: list[bytes] = []
        self._failing: dict[str, set[str]] = {}
        """Fault → the peers whose messages cannot be decrypted."""
        after = settings.read_after
        self._conversation = server.Conversation(folder, self._server, reporter, after)

    async def connect(self) -> None:
        if self._stopping:
            raise EngineError("cannot connect: the session is stopping", code="stopping")
        if not runs(self._login) and not runs(self._traffic):
            self._login = self._tasks.start(self._log_in(), "login")

    async def disconnect(self) -> None:
        await self.hang_up()
        self._tell(Status.DISCONNECTED)

    async def probe(self, *, deep: bool = False) -> ProbeAnswer:
        detail: dict[str, Any] = {}
        if self._server.connected:
            detail["ping_seconds"] = round(await self._server.ping(), 4)
        else:
            await self._server.lag()
        return ProbeAnswer(self._now(), detail)

    async def qr(self) -> Qr | None:
        await self._server.lag()
        if self._claim.reason == "qr_idle":
            await self.connect()
        left = max(0.0, self._code_until - boot_now())
        return None if self._code is None else replace(self._code, expires_in=left)

    async def send(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send a message of any type; the contact has it when this returns."""
        if not isinstance(message.get("to"), str) or not message["to"]:
            raise InvalidRequest("cannot send: the message has no receiver", field="to")
        await self._reach("send")
        return {"id": self._conversation.send(message)}

    async def mark_read(self, asked: Mapping[str, Any]) -> None:
        await self._reach("mark messages as read")
        self._conversation.tell({"type": "read", **asked})

    async def presence(self, asked: Mapping[str, Any]) -> None:
        await self._reach("show a presence")
        self._conversation.tell({**asked, "type": asked["state"]})

    async def _reach(self, doing: str) -> None:
        if self._claim.status is not Status.CONNECTED or self._stopping:
            raise EngineError(f"cannot {doing}: not connected", code="not_connected")
        await self._server.ping()

    async def load_media(self, record: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        await self._reach("load the file")
        async for piece in self._conversation.file_of(record):
            yield piece

    async def logout(self) -> None:
        self._saved.unpair()
        await self.hang_up()
        self._tell(Status.DISCONNECTED, "logout")

    async def regenerate_keys(self, peers: list[str]) -> None:
        await self._server.lag()
        for peer in peers:
            for name, failing in self._failing.items():
                failing.discard(peer)
                if not failing:
                    self._faults.clear(name)
            self._happened("key_regeneration", peer=peer, ok=True)

    async def free_memory(self) -> None:
        gc.collect()

    async def prepare_stop(self) -> None:
        self._stopping = True
        await cancel(self._traffic)

    async def save(self) -> None:
        for _ in range(10):
            await asyncio.sleep(self._settings.save_seconds / 10)
            self._reporter.progress()
        self._saved.save()

    async def close(self) -> None:
        self._server.connected = False
        await self._tasks.cancel()
        self._conversation.close()

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        talk = self._conversation
        does = {"say": talk.say, "heard": talk.heard, "file_part": talk.take_part}
        if name in does:
            return does[name](arguments)
        if name == "fault":
            return await self._cause_fault(arguments)
        if name != "scan":
            known = ", ".join(("scan", "fault", *does))
            raise InvalidRequest(f"cannot {name!r:.40}: the sandbox knows {known}", field="name")
        if self._code is None:
            raise EngineError(f"cannot scan: no code; it is {self._claim.status}", code="no_code")
        self._scanned.set()
        return {}

    async def _cause_fault(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Cause a fault: `{"name": fault | "clear", "for": seconds | null, ...}`"""
        rest = {key: value for key, value in arguments.items() if key not in ("name", "for")}
        if (name := arguments["name"]) == "clear":
            self._faults.clear()
        else:
            await self._begin(self._faults.begin(name, arguments.get("for"), rest))
        return {"faults": self._faults.list()}

    async def _begin(self, fault: server.Fault) -> None:
        name, loop = fault.name, asyncio.get_running_loop()
        if name in ("crash", "corrupt-files"):
            if name == "corrupt-files":
                await asyncio.to_thread(server.damage, self._saved.folder / rules.NAME)
            loop.call_later(server.REPLY_FIRST, server.die)
        elif name == "hang":
            seconds = fault.until_wall - time.time() if fault.until_wall else 86_400.0
            loop.call_later(server.REPLY_FIRST, time.sleep, max(0.0, seconds))
        elif name == "logout":
            self._faults.clear(name)
            if self._saved.now.paired:
                await self.logout()
        elif name in server.LOST_BY:
            if fault.until_wall is None and name in server.KEPT_WITH_END:
                self._faults.clear(name)
            if self._server.connected or runs(self._login):
                await self.hang_up()
                self._tell(Status.DISCONNECTED, **fault.lost)
        elif name == "stuck-loading" and self._claim.status is Status.CONNECTED:
            await cancel(self._traffic)
            self._login = self._tasks.start(self._sync(), "sync")
        elif name == "leak":
            self._tasks.start(self._leak_on(fault), "fault leak")
        elif name in server.CRYPTO:
            peers = fault.arguments.get("peers", ["5511900000001@s.whatsapp.net"])
            self._failing[name] = set(peers)
            self._tasks.start(self._fail_to_decrypt(fault), f"fault {name}")

    async def _leak_on(self, fault: server.Fault) -> None:
        rate = fault.arguments.get("bytes_per_second", 10 * 2**20)
        while self._faults.active("leak") is fault:
            self._leak.append(b"x" * max(1, int(rate / 10)))
            await asyncio.sleep(0.1)
        self._leak.clear()

    async def _fail_to_decrypt(self, fault: server.Fault) -> None:
        code, text = server.CRYPTO[fault.name]
        pause = 60.0 / fault.arguments.get("per_minute", 60.0)
        while self._faults.active(fault.name) is fault:
            for peer in sorted(self._failing[fault.name]):
                self._happened("crypto_error", pattern=code, text=text, peer=peer)
            await asyncio.sleep(pause)

    def _happened(self, kind: str, **detail: Any) -> None:
        self._reporter.happened(Happening(kind, detail))

    async def hang_up(self) -> None:
        self._server.connected = False
        self._hide_code()
        await cancel(self._login)
        await cancel(self._traffic)

    async def _log_in(self) -> None:
        if self._faults.active("crash"):
            server.die()
        try:
            self._saved.load()  # first, so that no claim calls a paired session unpaired
            self._tell(Status.INITIALIZING, phase="login")
            if refused := await self._server.connect():
                self._tell(Status.DISCONNECTED, **refused.lost)
            elif self._saved.now.paired or await self._pair():
                await self._sync()
        except rules.SessionDamagedError as error:
            self._tell(Status.AUTH_FAILURE, "session_damaged", raw=str(error))
        except EngineError as error:
            self._server.connected = False
            self._happened("error", code=error.code)
            if error.code == UNREADABLE:
                self._tell(Status.AUTH_FAILURE, UNREADABLE, raw=str(error))
            else:
                self._tell(Status.DISCONNECTED, "unknown", raw=str(error))

    async def _pair(self) -> bool:
        for number in range(1, self._settings.qr_codes + 1):
            if await self._is_scanned(number):
                self._hide_code()
                if self._faults.active("passkey"):
                    self._tell(Status.QR_REQUIRED, PASSKEY_REQUIRED, phase="login")
                    continue
                # The same number for the same instance, always.
                name = self._saved.folder.parent.name.encode()
                usual = f"55119{zlib.crc32(name) % 100_000_000:08d}"
                self._saved.pair(self._settings.account or usual)
                return True
        self._hide_code()
        self._server.connected = False
        self._tell(Status.QR_REQUIRED, "qr_idle")
        return False

    async def _is_scanned(self, number: int) -> bool:
        """Show the next code, a reference and three keys like the real one, as long as it holds."""
        keys = (binascii.b2a_base64(os.urandom(32), newline=False).decode() for _ in range(4))
        holds, after = self._settings.qr_every, self._settings.scan_after
        self._code, self._code_until = Qr("2@" + ",".join(keys), holds, number), boot_now() + holds
        asked = PASSKEY_REQUIRED if self._claim.reason == PASSKEY_REQUIRED else ""
        self._tell(Status.QR_REQUIRED, asked, phase="login", raw=f"code {number}")
        by_itself = self._settings.scan == "auto" and after < holds
        try:
            async with asyncio.timeout(after if by_itself else holds):
                await self._scanned.wait()
        except TimeoutError:
            return by_itself
        return True

    def _hide_code(self) -> None:
        self._code = None
        self._scanned.clear()

    async def _sync(self) -> None:
        for step in range(4):
            self._tell(Status.LOADING, phase="sync", progress=step / 4)
            await asyncio.sleep(self._settings.sync_seconds / 4)
            while step == 1 and self._faults.active("stuck-loading"):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        self._tell(Status.CONNECTED)
        self._traffic = self._tasks.start(self._talk(), "traffic")

    async def _talk(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._conversation.take(), name="messages")
            if rate := self._settings.messages_per_minute:
                tasks.create_task(self._conversation.make_noise(60.0 / rate), name="noise")

    def _tell(self, status: ConnectionStatus, reason: str = "", **more: Any) -> None:
        self._claim = Claim(status, reason, **more)
        self._reporter.claim(self._now())

    def _now(self) -> Claim:
        return replace(
            self._claim,
            proof_age=self._server.proof_age(),
            # A claim that still asks for a code must not say `paired` as well.
            paired=self._saved.now.paired and self._claim.status is not Status.QR_REQUIRED,
            account=self._saved.now.account,
            version=VERSION,
        )
