"""The phone that scans the sandbox's codes, by itself or on command."""

import asyncio
import binascii
import os
import zlib
from contextlib import suppress

from agent.engines.base import Qr
from agent.engines.sandbox.settings import SandboxSettings


def account_of(name: str, settings: SandboxSettings) -> str:
    """The same number for the same instance, always."""
    return settings.account or f"55119{zlib.crc32(name.encode()) % 100_000_000:08d}"


class Phone:
    """Looks at one login's codes."""

    def __init__(self, settings: SandboxSettings) -> None:
        self._settings = settings
        self._scanned = asyncio.Event()
        self._showing = asyncio.Event()
        self._shown = ""
        self._number = 0
        self._until = 0.0

    def show(self, number: int) -> None:
        """Put up the next code: a reference and three keys, like the real one."""
        keys = (binascii.b2a_base64(os.urandom(32), newline=False).decode() for _ in range(4))
        self._shown = "2@" + ",".join(keys)
        self._number = number
        self._until = asyncio.get_running_loop().time() + self._settings.qr_every
        self._showing.set()

    def hide(self) -> None:
        self._shown = ""
        self._showing.clear()
        self._scanned.clear()

    def code(self) -> Qr | None:
        if not self._shown:
            return None
        left = max(0.0, self._until - asyncio.get_running_loop().time())
        return Qr(self._shown, left, self._number)

    async def wait_for_code(self, limit: float) -> None:
        """Return when a code is shown, or after `limit` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._showing.wait()

    def scan(self) -> bool:
        """False when there is nothing to scan."""
        if self._shown:
            self._scanned.set()
        return bool(self._shown)

    async def look(self) -> bool:
        """Wait as long as the code holds; True when it was scanned."""
        limit = self._settings.qr_every
        by_itself = self._settings.scan == "auto" and self._settings.scan_after < limit
        try:
            async with asyncio.timeout(self._settings.scan_after if by_itself else limit):
                await self._scanned.wait()
        except TimeoutError:
            return by_itself
        return True
