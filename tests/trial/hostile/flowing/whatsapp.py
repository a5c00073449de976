"""WhatsApp for one account of `bot.py`: it gives each message until it was taken, and notes what it
got, who logged in without a pairing, and who logged in beside another."""

import asyncio
import json
import secrets
from contextlib import suppress
from typing import Any


class WhatsApp:
    def __init__(self) -> None:
        self.waiting: list[int] = []
        self.taken: set[int] = set()
        self.got: dict[str, set[str]] = {}
        """The ids under which each text came."""
        self.pairings = 0
        self.rivals = 0
        """Logins while another connection was open."""
        self.port = 0
        self._token: str | None = None
        self._open: dict[asyncio.StreamWriter, set[int]] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.close()

    def say(self, number: int) -> None:
        self.waiting.append(number)
        for writer in self._open:
            self._give(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, ValueError):
            hello = json.loads(await reader.readline())
            if hello["token"] is None:
                self.pairings += 1
                self._token = secrets.token_hex(8)
                _write(writer, token=self._token)
            elif hello["token"] != self._token:
                self.pairings += 1000  # the files of another pairing
                writer.close()
                return
            self.rivals += len(self._open)
            self._open[writer] = set()
            _write(writer, open=True)
            self._give(writer)
            async for line in reader:
                self._hear(writer, json.loads(line))
        self._open.pop(writer, None)
        writer.close()

    def _hear(self, writer: asyncio.StreamWriter, told: dict[str, Any]) -> None:
        if "took" in told:
            self.taken.add(told["took"])
            self.waiting = [number for number in self.waiting if number != told["took"]]
        elif "refused" in told:
            self._open[writer].discard(told["refused"])
            self._give(writer)
        elif "sent" in told:
            self.got.setdefault(told["text"], set()).add(told["sent"])
            _write(writer, has=told["sent"])

    def _give(self, writer: asyncio.StreamWriter) -> None:
        for number in self.waiting:
            if number not in self._open[writer]:
                self._open[writer].add(number)
                _write(writer, number=number)


def _write(writer: asyncio.StreamWriter, **line: Any) -> None:
    writer.write(json.dumps(line).encode() + b"\n")
