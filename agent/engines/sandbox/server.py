"""WhatsApp's side of the sandbox: it takes logins, sends frames, answers pings. Faults work here as
at the real server or on the way to it; the engine only sees frames, answers, refusals, or nothing.
"""

import asyncio
from collections.abc import Callable

from agent.clock import boot_now
from agent.engines.sandbox.drill import Faults
from agent.engines.sandbox.settings import SandboxSettings
from agent.errors import EngineError

PONG_LIMIT = 0.5
"""Seconds; what the protocol waits for the answer to a ping."""


class RefusedError(Exception):
    """The server, or the network before it, does not take the connection."""

    def __init__(self, reason: str, until_wall: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.until_wall = until_wall


class Server:
    """One connection at a time."""

    def __init__(self, settings: SandboxSettings, faults: Faults) -> None:
        self._settings = settings
        self._faults = faults
        self._last_frame = 0.0
        self.connected = False
        self.frames = 0

    async def connect(self) -> None:
        await asyncio.sleep(self._settings.login_seconds)
        refusal = self.refusal()
        if refusal is not None:
            raise refusal
        self.connected = True
        self.frame()

    def close(self) -> None:
        self.connected = False

    def refusal(self) -> RefusedError | None:
        """Why no connection is possible at this moment."""
        if self._faults.active("drop"):
            return RefusedError("connection_lost")
        if self._faults.active("outdated"):
            return RefusedError("client_outdated")
        if self._faults.active("ban"):
            return RefusedError("banned")
        if ban := self._faults.active("temp-ban"):
            return RefusedError("temporary_ban", ban.until_wall)
        return None

    def frame(self) -> bool:
        """Let one frame reach the engine; False when it gets lost."""
        if not self.connected or self._faults.active("zombie"):
            return False
        self.frames += 1
        self._last_frame = boot_now()
        return True

    def proof_age(self) -> float | None:
        """Seconds since the last frame reached the engine; None without a connection."""
        return boot_now() - self._last_frame if self.connected else None

    async def ping(self) -> float:
        """Ask the server for a sign of life; return how long it took."""
        begun = boot_now()
        await self.lag()
        if not self.frame():
            await asyncio.sleep(PONG_LIMIT)
            raise EngineError("cannot reach the server: no answer to a ping", code="no_answer")
        return boot_now() - begun

    async def lag(self) -> None:
        if slow := self._faults.active("slow"):
            await asyncio.sleep(slow.number("seconds", 3.0, 0.0, 600.0))

    async def keep_alive(self, message: Callable[[], None]) -> None:
        """Send frames for ever, and messages at their rate."""
        rate = self._settings.messages_per_minute
        message_at = boot_now() + 60.0 / rate if rate else float("inf")
        frame_at = boot_now() + self._settings.frame_every
        while True:
            await asyncio.sleep(max(0.0, min(message_at, frame_at) - boot_now()))
            if boot_now() >= message_at:
                message_at = max(message_at + 60.0 / rate, boot_now())
                if self.frame():
                    message()
            if boot_now() >= frame_at:
                frame_at = boot_now() + self._settings.frame_every
                self.frame()
