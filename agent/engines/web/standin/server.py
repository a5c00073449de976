"""A small server that plays WhatsApp for the stand-in page: codes, pairings, messages, trouble.

For tests and for `wa-agent sandbox web`; standard library only, on loopback only.
"""

import asyncio
import base64
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.engines.web.standin.client import Client
from agent.engines.web.standin.frames import receive_text
from agent.engines.web.standin.fronts import KEEPER, Front
from agent.engines.web.standin.passkey import is_answer
from agent.engines.web.standin.replies import is_for_us, send_front, send_reply

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_BODY_LIMIT = 10_000
_FILES = {
    "/": ("page.html", "text/html"),
    "/standin.js": ("standin.js", "text/javascript"),
    "/phone": ("phone.html", "text/html"),
    "/phone.js": ("phone.js", "text/javascript"),
}


class StandIn:
    """WhatsApp as far as the page can see it."""

    def __init__(self, *, qr_every: float = 20.0, qr_codes: int = 6, alive_every: float = 5.0):
        self.clients: list[Client] = []
        self.devices: dict[str, str] = {}
        """Linked devices and their accounts."""
        self.requests: list[str] = []
        self.heads: list[str] = []
        """The requests' heads, as the browser sent them."""
        self.syncs = True
        """False: a login stays in its sync until `synced` is told."""
        self.answers_sends = True
        self.passkey = ""
        """What becomes of a pairing: "" = it is completed, "ask" = the page asks for a passkey,
        "silent" = nothing more happens."""
        self.passkey_limit = 1.5
        """Seconds in which the passkey must come."""
        self.front: Front | None = None
        """What comes in place of the page; None: the page."""
        self.refuses = ""
        """A stream's mode that each page is told as soon as it says hello; "" = none."""
        self.missing = ""
        """Modules that the page does not define, separated by commas."""
        self.reload_every = 0.0
        """Seconds after which each page loads itself again; 0 = never."""
        self.padding, self.pace = 0, 0.0
        """Bytes that make the page's script longer, and bytes a second for it; 0 = at once."""
        self.qr_every, self.qr_codes, self.alive_every = qr_every, qr_codes, alive_every
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._count = 0

    @classmethod
    async def open(cls, *, port: int = 0, **how: Any) -> "StandIn":
        stand_in = cls(**how)
        stand_in._server = await asyncio.start_server(stand_in._serve, "127.0.0.1", port)
        return stand_in

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        for client in list(self.clients):
            client.writer.close()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # what a phone, or trouble, can do

    def page(self, name: str = "") -> Client:
        """The newest open page (of that name)."""
        found = [each for each in self.clients if not name or each.name == name]
        if not found:
            raise LookupError(f"no page {name} is open")
        return found[-1]

    def scan(self, account: str, name: str = "") -> str:
        """A phone of that account scans the code; its device's id, "" while a passkey is due."""
        return self.scan_of(self.page(name), account)

    def scan_of(self, client: Client, account: str) -> str:
        if not client.code:
            raise LookupError("no code is shown")
        return self._pair(client, account)

    def enter_code(self, code: str) -> str:
        """A phone enters a pairing code."""
        for client in self.clients:
            if client.link_code and client.link_code == code:
                return self._pair(client, str(client.received[-1].get("phone", "")))
        raise LookupError("no page shows this code")

    def log_out(self, account: str, reason: str = "user_initiated") -> None:
        """The phone removes its linked devices."""
        for device, whose in list(self.devices.items()):
            if whose == account:
                del self.devices[device]
                for client in self.clients:
                    if client.device == device:
                        client.tell("logout", reason=reason)

    def _pair(self, client: Client, account: str) -> str:
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
        client.tell("paired", account=account, id=client.device, synced=self.syncs)
        return client.device

    # the page's side

    def _take(self, client: Client, raw: Mapping[str, Any]) -> None:
        client.received.append(raw)
        match raw.get("do"):
            case "hello":
                client.name = str(raw.get("name", ""))
                client.device = str(raw.get("device", ""))
                if self.refuses:
                    client.tell("stream", mode=self.refuses, socket=self.refuses)
                    return
                if not client.device:
                    client.codes_left = self.qr_codes
                    self.show_next_code(client)
                elif client.device in self.devices:
                    client.tell("welcome", synced=self.syncs)
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
            case "send" if self.answers_sends:
                client.tell("sent", id=raw.get("id"), result="OK", t=1)

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
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, path = head.split(" ", 2)[:2]
        self.requests.append(path)
        self.heads.append(head)
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
        }
        if path == "/ws":
            await self._talk(reader, writer, fields.get("sec-websocket-key", ""))
        else:
            front = self.front if path.split("?")[0] == "/" else None
            size = min(int(fields.get("content-length") or 0), _BODY_LIMIT)
            body = await reader.readexactly(size)
            if front is not None:
                await send_front(writer, front)
                return
            status, kind, content = self._answer(method, path.split("?")[0], fields, body)
            slow = path.startswith("/standin.js") and bool(self.pace)
            if slow:
                content += b"\n/*" + b"x" * self.padding + b"*/"
            await send_reply(writer, status, kind, content, pace=self.pace if slow else 0.0)

    def _answer(
        self, method: str, path: str, fields: Mapping[str, str], body: bytes
    ) -> tuple[str, str, bytes]:
        if not is_for_us(fields):
            return "403 Forbidden", "text/plain", b"not for another site's page"
        if method == "POST" and path == "/phone":
            return self._play(body)
        if path == "/pages":
            rows = [
                {
                    "number": each.number,
                    "name": each.name,
                    "account": self.devices.get(each.device, ""),
                    "code": bool(each.code),
                }
                for each in self.clients
            ]
            return "200 OK", "application/json", json.dumps(rows).encode()
        if path == "/keeper.js":
            return "200 OK", "text/javascript", KEEPER
        if path not in _FILES:
            return "404 Not Found", "text/plain", b"no such page"
        name, kind = _FILES[path]
        content = Path(__file__).with_name(name).read_bytes()
        if path == "/standin.js" and self.missing:
            content = f"globalThis.__missing = {json.dumps(self.missing)};\n".encode() + content
        if path == "/" and self.reload_every:
            milliseconds = round(self.reload_every * 1000)
            script = f"setTimeout(() => location.reload(), {milliseconds})"
            content += f'<script nonce="standin">{script}</script>\n'.encode()
        return "200 OK", kind, content

    def _play(self, body: bytes) -> tuple[str, str, bytes]:
        """A click on the phone's page."""
        try:
            raw = json.loads(body)
            client = next(each for each in self.clients if each.number == raw["page"])
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
                self._take(client, json.loads(text))
        finally:
            living.cancel()
            self.clients.remove(client)


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
