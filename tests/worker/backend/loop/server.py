"""The server behind the `loop` engine: real sockets, states and faults as a test sets them."""

import asyncio
import json
from contextlib import suppress
from typing import Any


class LoopServer:
    port: int

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []
        self.faults: dict[str, dict[str, Any]] = {}
        """By request, or by request and session as `probe:name`: what is answered instead."""
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[Any]] = set()

    async def open(self, port: int = 0) -> "LoopServer":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def count(self, do: str) -> int:
        return sum(asked == do for asked, _ in self.asked)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
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
