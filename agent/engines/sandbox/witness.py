"""Tells a program of the tests which connections this session has, as WhatsApp would see them."""

import asyncio
import os

from agent.clock import boot_now


class Witness:
    """One connection at a time, at most as long as the session's own."""

    def __init__(self, address: str) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._writer: asyncio.StreamWriter | None = None

    async def login(self, session: str, device: str) -> None:
        """OSError: it cannot be reached."""
        if self._host:
            self.close()
            _, self._writer = await asyncio.open_connection(self._host, int(self._port))
            self._say("login", session, device, str(os.getpid()))

    def frame(self) -> None:
        self._say("frame")

    def close(self) -> None:
        if self._writer is not None:
            self._say("end")
            self._writer.close()
            self._writer = None

    def _say(self, *words: str) -> None:
        if self._writer is not None:
            self._writer.write(" ".join((*words, f"{boot_now():.6f}\n")).encode())
