"""The server behind the `loop` engine: real sockets, states and faults as a test sets them."""

import asyncio
import json
from contextlib import suppress
from typing import Any

from tests.listener import Listener
from tests.ports import free_port


class LoopServer:
    port: int

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []
        self.faults: dict[str, dict[str, Any]] = {}
        """By request, or by request and session as `probe:name`: what is answered instead."""
        self._listener: Listener | None = None

    async def open(self, port: int = 0) -> "LoopServer":
        # One that no other program can get between two openings.
        self.port = port or free_port()
        self._listener = await Listener(self._serve).open(port=self.port)
        return self

    async def close(self) -> None:
        if self._listener is not None:
            await self._listener.close()
            self._listener = None

    def count(self, do: str) -> int:
        return sum(asked == do for asked, _ in self.asked)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(await reader.readline())
            do, name = request["do"], request["session"]
            self.asked.append((do, name))
            fault = self.faults.get(f"{do}:{name}", self.faults.get(do))
            writer.write(json.dumps(fault or self._answer(do, name)).encode() + b"\n")
            await writer.drain()
        except (ValueError, OSError):
            pass  # the worker went
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _answer(self, do: str, name: str) -> dict[str, Any]:
        if do == "check":
            return {"version": "2.3.7", "sessions": len(self.states)}
        if do == "list":
            return {"states": self.states}
        if name not in self.states:
            return {"error": "remote_missing"}
        if do in ("connect", "restart"):
            self.states[name] = "CONNECTED"
        if do == "logout":
            self.states[name] = "DISCONNECTED"
        return {"state": self.states[name], "text": "2@qr", "done": do}
