"""One session of the stand-in: Baileys as far as a manager can see it.

Its keys are read once, at the start, and written from memory from then on: what is deleted
under a running session comes back.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.standin.whaticket import words
from tests.standin.whaticket.keys import FolderKeys, fresh, paired_keys

DAMAGED = "damaged"


@dataclass
class Faults:
    """Faults of all sessions."""

    stuck_opening: bool = False
    comes_back: bool = False
    """It connects again by itself right after a disconnect."""
    refuses_start: int = 0
    """The status that a start is refused with."""
    writes_when_down: bool = False
    """Something of it still runs, and writes, after it said DISCONNECTED."""
    loses_pairing: bool = False
    """WhatsApp removes the device while it is disconnected, and its keys are wiped."""


@dataclass
class Pace:
    opening: float = 0.05
    closing: float = 0.1
    restart_after: float = 2.0
    write_every: float = 0.02
    code_every: float = 20.0
    codes: int = 3


@dataclass
class Session:
    id: str
    name: str
    keys: FolderKeys
    log: Callable[[str], None]
    faults: Faults
    pace: Pace
    status: str = "DISCONNECTED"
    qrcode: str = ""
    number: str = ""
    token: str = field(default_factory=lambda: "tok" + os.urandom(8).hex())
    memory: dict[str, str] = field(default_factory=dict)
    starts: int = 0
    logouts: int = 0
    rests: float = 0.0
    """Seconds until it writes again, once it has written."""
    _life: asyncio.Task[None] | None = None
    _closing: asyncio.Task[None] | None = None
    _scanned: asyncio.Event = field(default_factory=asyncio.Event)

    async def pair(self, number: str, peers: list[str], lids: dict[str, str]) -> None:
        """As if it had been paired long ago."""
        self.number = number
        for name, text in paired_keys(number, peers, lids).items():
            await self.keys.write(self.id, name, text)

    def start(self) -> None:
        self.starts += 1
        self.log(words.info(f"Starting session {self.name}"))
        self.status, self.qrcode = "OPENING", ""
        self._life = asyncio.create_task(self._live())

    def scan(self) -> None:
        self._scanned.set()

    async def disconnect(self) -> None:
        """Keeps the pairing; over after a while in which it is still connected. One that is down
        has nothing to close, and would write what it had in its memory once more."""
        down = self.status == "DISCONNECTED" or self._closing is not None
        if not down:
            self._closing = asyncio.create_task(self._close())

    async def log_out(self) -> None:
        self.logouts += 1
        await self.end()
        await self.keys.wipe(self.id)
        self.memory.clear()
        self.status, self.qrcode, self.number = "DISCONNECTED", "", ""
        self.turn("close Intentional Logout")

    async def drop(self) -> None:
        """WhatsApp's side went away; these servers restart after two seconds, for ever."""
        await self.end()
        self.status = "PENDING"
        self.turn("close Connection was lost")
        self._life = asyncio.create_task(self._restart_later())

    def receive(self, peer: str) -> bool:
        """A message of that peer: readable or not, and what the log says of it."""
        name = f"session-{peer}.0"
        if self.memory.get(name) != DAMAGED:
            self.memory.setdefault(name, fresh("session"))
            return True
        self.log(words.bad_mac(f"{peer}.0"))
        self.log(words.pino(f"{peer}@s.whatsapp.net", sessionId=self.id))
        return False

    async def damage(self, peer: str) -> None:
        name = f"session-{peer}.0"
        self.memory[name] = DAMAGED
        await self.keys.write(self.id, name, DAMAGED)

    def turn(self, text: str) -> None:
        self.log(words.info(f"Socket  {self.name} Connection Update {text}"))

    async def end(self) -> None:
        for task in (self._life, self._closing):
            if task is not None and task is not asyncio.current_task():
                await stopped(task)
        self._life = self._closing = None

    def row(self) -> dict[str, object]:
        return {
            "id": int(self.id) if self.id.isdigit() else self.id,
            "name": self.name,
            "session": "",
            "qrcode": self.qrcode,
            "status": self.status,
            "battery": None,
            "plugged": None,
            "retries": 0,
            "isDefault": False,
            "number": self.number,
            "token": self.token,
            "companyId": 1,
        }

    # a life

    async def _live(self) -> None:
        await asyncio.sleep(self.pace.opening)
        while self.faults.stuck_opening:  # noqa: ASYNC110 - a flag that a test clears
            await asyncio.sleep(0.02)
        self.memory = await self.keys.load(self.id)
        if "creds" not in self.memory and not await self._pair():
            return
        self.status = "CONNECTED"
        self.number = json.loads(self.memory["creds"])["me"]["id"].split(":")[0]
        self.turn("open undefined")
        while True:
            await self._write()
            self.rests = self.pace.write_every
            await asyncio.sleep(self.rests)

    async def _pair(self) -> bool:
        self._scanned.clear()
        for _ in range(self.pace.codes):
            self.qrcode = "2@" + os.urandom(24).hex() + ",noise,identity,adv"
            self.status = "qrcode"
            self.log(words.info(f"Session QRCode Generate {self.name}"))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.pace.code_every):
                    await self._scanned.wait()
                    self.qrcode = ""
                    self.memory = paired_keys("5511000000000", [], {})
                    return True
        self.status, self.qrcode = "DISCONNECTED", ""
        self.turn("close QR refs attempts ended")
        return False

    async def _write(self) -> None:
        for name in list(self.memory):
            text = self.memory.get(name)  # as it is by now
            theirs = name.startswith(("session-", "sender-key-")) or self.status == "CONNECTED"
            if text is not None and theirs:
                await self.keys.write(self.id, name, text)

    async def _close(self) -> None:
        await asyncio.sleep(self.pace.closing)
        if self._life is not None:
            await stopped(self._life)
        await self._write()
        self.status = "DISCONNECTED"
        self.turn("close Connection Terminated")
        self._closing = None
        if self.faults.loses_pairing:
            await self.keys.wipe(self.id)
        if self.faults.comes_back:
            self.start()
        while self.faults.writes_when_down and self.status == "DISCONNECTED":
            await self._write()
            await asyncio.sleep(0.05)

    async def _restart_later(self) -> None:
        await asyncio.sleep(self.pace.restart_after)
        self.start()


async def stopped(task: asyncio.Task[None]) -> None:
    """Ended, however often it must be told: a request to Redis may swallow the first time."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.2)
