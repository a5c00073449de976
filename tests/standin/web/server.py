"""A small server that plays WhatsApp for the stand-in page: codes, pairings, messages. Standard
library only, on loopback only."""

import asyncio
import base64
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.standin.web.client import Client
from tests.standin.web.frames import receive_text
from tests.standin.web.passkey import is_answer

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_BODY_LIMIT = 10_000
_POLICY = "script-src 'nonce-standin' 'self'; object-src 'none'"
"""As strict as the real site's: a script put into the page by other means does not run."""
_FILES = {
    "/": ("page.html", "text/html"),
    "/messages.js": ("messages.js", "text/javascript"),
    "/standin.js": ("standin.js", "text/javascript"),
    "/phone": ("phone.html", "text/html"),
    "/phone.js": ("phone.js", "text/javascript"),
}


Answer = tuple[str, str, bytes]
"""Status, content type and content."""


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    """Without what follows the question mark."""
    head: str
    fields: Mapping[str, str]
    body: bytes

    @property
    def is_for_us(self) -> bool:
        """Whether no other site's page in the same browser asks."""
        host, origin = self.fields.get("host", ""), self.fields.get("origin", "")
        local = host.rpartition(":")[0] in ("127.0.0.1", "localhost")
        return local and origin in ("", f"http://{host}")


class StandIn:
    """WhatsApp as far as the page can see it."""

    def __init__(self, *, qr_every: float = 20.0, qr_codes: int = 6, alive_every: float = 5.0):
        self.clients: list[Client] = []
        self.devices: dict[str, str] = {}
        """Linked devices and their accounts."""
        self.passkey = ""
        """What becomes of a pairing: "" = it is completed, "ask" = the page asks for a passkey,
        "silent" = nothing more happens."""
        self.passkey_limit = 1.5
        """Seconds in which the passkey must come."""
        self.qr_every, self.qr_codes, self.alive_every = qr_every, qr_codes, alive_every
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._count = 0

    @classmethod
    async def open(cls, *, port: int = 0, **how: Any) -> Self:
        stand_in = cls(**how)
        stand_in._server = await asyncio.start_server(stand_in._serve, "127.0.0.1", port)
        return stand_in

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    async def close(self) -> None:
        assert self._server is not None
        loop = asyncio.get_running_loop()
        for listening in self._server.sockets:
            loop.remove_reader(listening)
        for _ in range(4):  # steps in which a browser that was just accepted becomes a client
            await asyncio.sleep(0)
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        for client in list(self.clients):
            client.writer.close()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def scan_of(self, client: Client, account: str) -> str:
        """A phone of that account scans the code; the new device's id."""
        if not client.code:
            raise LookupError("no code is shown")
        return self.pair(client, account)

    def log_out(self, account: str, reason: str = "user_initiated") -> None:
        """The phone removes its linked devices."""
        for device, owner in list(self.devices.items()):
            if owner == account:
                del self.devices[device]
                for client in self.clients:
                    if client.device == device:
                        client.tell("logout", reason=reason)

    def pair(self, client: Client, account: str) -> str:
        client.code = client.link_code = ""
        if self.passkey:
            client.asks_for, client.challenge = account, os.urandom(32)
            challenge = base64.b64encode(client.challenge).decode()
            asked, limit = self.passkey == "ask", self.passkey_limit
            client.tell("pairing", passkey=asked, challenge=challenge, limit=limit)
            return ""
        return self._link(client, account)

    def _link(self, client: Client, account: str) -> str:
        client.device = os.urandom(6).hex()
        self.devices[client.device] = account
        client.tell("paired", account=account, id=client.device)
        return client.device

    def take(self, client: Client, raw: Mapping[str, Any]) -> None:
        client.received.append(raw)
        match raw.get("do"):
            case "hello":
                client.name = str(raw.get("name", ""))
                client.device = str(raw.get("device", ""))
                if not client.device:
                    client.codes_left = self.qr_codes
                    self.show_next_code(client)
                elif client.device in self.devices:
                    client.tell("welcome")
                else:
                    client.tell("logout", reason="unknown_companion")
            case "refresh":
                client.codes_left = self.qr_codes
                self.show_next_code(client)
            case "link_code":
                client.link_code = str(raw.get("code", ""))
            case "passkey_answered" if is_answer(raw, client.challenge):
                self._link(client, client.asks_for)
            case "logout":
                self.devices.pop(str(raw.get("device")), None)
            case "send":
                client.tell("sent", id=raw.get("id"), key=raw.get("key"), result="OK", t=1)

    def show_next_code(self, client: Client) -> None:
        client.codes_left -= 1
        client.code = "2@" + base64.b64encode(os.urandom(24)).decode()
        client.tell("code", ref=client.code)

    async def _live(self, client: Client) -> None:
        """Signs of life, and new codes until a scan."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        shown = client.code
        while not client.writer.is_closing():
            await asyncio.sleep(min(self.alive_every, self.qr_every) / 2)
            client.tell("alive")
            if client.code != shown:
                begun, shown = loop.time(), client.code
            elif client.code and loop.time() - begun >= self.qr_every:
                if client.codes_left > 0:
                    self.show_next_code(client)
                else:
                    client.code = ""
                    client.tell("idle")

    # HTTP and WebSocket, as little as is needed

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await self._serve_one(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the browser went away
        finally:
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await self.read_request(reader)
        if request.path == "/ws":
            await self._talk(reader, writer, request.fields.get("sec-websocket-key", ""))
        else:
            await self.respond(writer, request)

    async def read_request(self, reader: asyncio.StreamReader) -> Request:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, path = head.split(" ", 2)[:2]
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
        }
        size = min(int(fields.get("content-length") or 0), _BODY_LIMIT)
        return Request(method, path.split("?")[0], head, fields, await reader.readexactly(size))

    async def respond(self, writer: asyncio.StreamWriter, request: Request) -> None:
        status, kind, content = self.answer(request)
        write_head(writer, status, kind, len(content))
        writer.write(content)
        await writer.drain()

    def answer(self, request: Request) -> Answer:
        path = request.path
        if not request.is_for_us:
            return "403 Forbidden", "text/plain", b"not for another site's page"
        if request.method == "POST" and path == "/phone":
            return self._play(request.body)
        if path == "/pages":
            rows = [
                {
                    "number": client.number,
                    "name": client.name,
                    "account": self.devices.get(client.device, ""),
                    "code": bool(client.code),
                }
                for client in self.clients
            ]
            return "200 OK", "application/json", json.dumps(rows).encode()
        if path not in _FILES:
            return "404 Not Found", "text/plain", b"no such page"
        name, kind = _FILES[path]
        return "200 OK", kind, Path(__file__).with_name(name).read_bytes()

    def _play(self, body: bytes) -> Answer:
        """A click on the phone's page."""
        try:
            raw = json.loads(body)
            client = next(page for page in self.clients if page.number == raw["page"])
            _ACTS[raw["do"]](self, client)
        except (ValueError, KeyError, TypeError, LookupError, StopIteration) as error:
            return "409 Conflict", "text/plain", f"cannot do that: {error}".encode()
        return "200 OK", "text/plain", b"done"

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str
    ) -> None:
        accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        self._count += 1
        client = Client(self._count, "", writer)
        self.clients.append(client)
        living = asyncio.ensure_future(self._live(client))
        try:
            while (text := await receive_text(reader)) is not None:
                self.take(client, json.loads(text))
        finally:
            living.cancel()
            self.clients.remove(client)


def write_head(
    writer: asyncio.StreamWriter, status: str, kind: str, length: int, headers: str = ""
) -> None:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\n{headers}"
        f"Content-Length: {length}\r\nContent-Security-Policy: {_POLICY}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode())


_ACTS: Mapping[str, Callable[[StandIn, Client], object]] = {
    "scan": lambda played, page: played.scan_of(page, f"5511{page.number:09d}"),
    "passkey": lambda _, page: page.tell("pairing", passkey=True),
    "log_out": lambda played, page: played.log_out(played.devices[page.device]),
    "message": lambda _, page: page.tell("message", **{"from": "5511777777777@c.us", "body": "hi"}),
    "drop": lambda _, page: page.tell("stream", socket="TIMEOUT", info="OFFLINE"),
    "back": lambda _, page: page.tell("stream", socket="CONNECTED", info="NORMAL"),
    "conflict": lambda _, page: page.tell("stream", mode="CONFLICT", socket="CONFLICT"),
    "tos": lambda _, page: page.tell("stream", mode="TOS_BLOCK", socket="TOS_BLOCK"),
    "hang": lambda _, page: page.tell("hang", seconds=60),
}
