"""Carries faults out: each does what the real thing would do, to the process or the session."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.engines.sandbox.faults import Fault, Faults
from agent.engines.sandbox.files import NAME
from agent.errors import InvalidRequest

if TYPE_CHECKING:
    from agent.engines.sandbox.engine import SandboxEngine

REPLY_FIRST = 0.05
"""Seconds in which a command that ends or blocks the worker can still be answered."""
_LOST_BY = {
    "drop": "connection_lost",
    "conflict": "conflict",
    "ban": "banned",
    "temp-ban": "temporary_ban",
    "outdated": "client_outdated",
}
_CRYPTO = {"bad-mac": ("bad_mac", "Bad MAC"), "prekey": ("prekey_error", "Invalid PreKey ID")}


class Drill:
    """The faults of one engine at work."""

    def __init__(self, faults: Faults, session: "SandboxEngine") -> None:
        self._faults = faults
        self._session = session
        self._changed = asyncio.Event()
        self._leak: list[bytes] = []
        self._healed: set[str] = set()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._announce()

    async def command(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """`{"name": fault | "clear" | "list", "for": seconds | null, ...}`"""
        name = arguments["name"]
        if name == "clear":
            self._faults.clear()
            self._announce()
        elif name != "list":
            rest = {key: value for key, value in arguments.items() if key not in ("name", "for")}
            fault = self._faults.begin(name, arguments.get("for"), rest)
            self._announce()
            await self._begin(fault)
        return {"faults": self._faults.list()}

    def at_start(self) -> None:
        if self._faults.active("crash"):
            _die()

    def connected(self) -> None:
        """A login has succeeded."""
        if self._faults.active("conflict"):
            loop = asyncio.get_running_loop()
            loop.call_later(0.2, self._run, "conflict", self._lose_again)

    def is_active(self, name: str) -> bool:
        return self._faults.active(name) is not None

    async def while_active(self, name: str, begun: Callable[[], None] | None = None) -> None:
        """Return when that fault is over."""
        if self._faults.active(name) and begun is not None:
            begun()
        while self._faults.active(name):
            changed = self._changed
            await changed.wait()

    def heal(self, peer: str) -> None:
        """This peer's keys are new: its messages can be decrypted again."""
        self._healed.add(peer)
        for name in _CRYPTO:
            fault = self._faults.active(name)
            if fault and self._healed.issuperset(_peers(fault)):
                self._faults.clear(name)
                self._announce()

    async def _begin(self, fault: Fault) -> None:
        name, session = fault.name, self._session
        loop = asyncio.get_running_loop()
        if name == "crash":
            loop.call_later(REPLY_FIRST, _die)
        elif name == "hang":
            seconds = fault.until_wall - time.time() if fault.until_wall else 86_400.0
            loop.call_later(REPLY_FIRST, time.sleep, max(0.0, seconds))
        elif name == "corrupt-files":
            await asyncio.to_thread(_damage, session.files / NAME)
            loop.call_later(REPLY_FIRST, _die)
        elif name == "logout":
            self._faults.clear(name)
            await session.unpair()
        elif name in _LOST_BY:
            if fault.until_wall is None and name in ("drop", "conflict"):
                self._faults.clear(name)
            until = fault.until_wall if name == "temp-ban" else None
            await session.lose(_LOST_BY[name], until)
        elif name == "stuck-loading":
            await session.sync_again()
        elif name == "no-qr":
            await session.pair_again()
        elif name == "leak":
            self._run(name, lambda: self._leak_on(fault))
        elif name in _CRYPTO:
            self._healed.difference_update(_peers(fault))
            self._run(name, lambda: self._fail_to_decrypt(fault))

    def _run(self, name: str, work: Callable[[], Any]) -> None:
        earlier = self._running.get(name)
        if earlier is not None:
            earlier.cancel()
        self._running[name] = self._session.start(work(), f"fault {name}")

    async def _lose_again(self) -> None:
        if self._faults.active("conflict"):
            await self._session.lose("conflict")

    async def _leak_on(self, fault: Fault) -> None:
        rate = fault.number("bytes_per_second", 10 * 2**20, 1, 2**30)
        while self._faults.active("leak"):
            self._leak.append(b"x" * max(1, int(rate / 10)))
            await asyncio.sleep(0.1)
        self._leak.clear()

    async def _fail_to_decrypt(self, fault: Fault) -> None:
        code, text = _CRYPTO[fault.name]
        pause = 60.0 / fault.number("per_minute", 60.0, 0.1, 6000.0)
        while self._faults.active(fault.name):
            for peer in _peers(fault):
                if peer not in self._healed:
                    self._session.happened("crypto_error", pattern=code, text=text, peer=peer)
            await asyncio.sleep(pause)

    def _announce(self) -> None:
        """Wake who waits for a fault's end, and be woken at the next one."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        left = self._faults.next_end()
        if left is not None:
            self._timer = asyncio.get_running_loop().call_later(left + 0.01, self._end_reached)

    def _end_reached(self) -> None:
        self._faults.sweep()
        self._announce()


def _peers(fault: Fault) -> list[str]:
    return list(fault.arguments.get("peers", ["5511900000001@s.whatsapp.net"]))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _damage(path: Path) -> None:
    """Leave half of the file and rubbish after it, as a torn write does."""
    if not path.exists():
        raise InvalidRequest("cannot damage the session file: there is none", field="name")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + os.urandom(16))
