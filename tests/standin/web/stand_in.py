"""A small server that plays WhatsApp for the stand-in page: codes, pairings, messages, phones, and
faults on command. Standard library only, on loopback only."""

import asyncio
import base64
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.standin.web.client import Client
from tests.standin.web.frames import receive_text
from tests.standin.web.fronts import KEEPER, Front
from tests.standin.web.passkey import is_answer

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_POLICY = "script-src 'nonce-standin' 'self'; object-src 'none'"
"""As strict as the real site's: a script put into the page by other means does not run."""
_FILES = {
    "/": ("page.html", "text/html"),
    "/messages.js": ("messages.js", "text/javascript"),
    "/standin.js": ("standin.js", "text/javascript"),
}


class StandIn:
    """WhatsApp as far as the page can see it."""

    def __init__(self, *, qr_every: float = 20.0, qr_codes: int = 6, alive_every: float = 5.0):
        self.clients: list[Client] = []
        self.devices: dict[str, str] = {}
        """Linked devices and their accounts."""
        self.passkey = ""
        """The next pairing: "" = it is completed, "ask" = the page asks for a passkey, "silent" =
        nothing more happens."""
        self.passkey_limit = 1.5
        """Seconds in which the passkey must come."""
        self.qr_every, self.qr_codes, self.alive_every = qr_every, qr_codes, alive_every
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._count = 0
        self.requests: list[str] = []
        self.answers_sends = True
        self.waiting: dict[str, dict[int, dict[str, Any]]] = {}
        """Device → what it has not taken yet, by numbers that go on."""
        self.arrived: dict[str, Mapping[str, Any]] = {}
        """Id → the message that the peers' phones show: one of each id."""
        self.changed: set[str] = set()
        """Ids of edits and deletions: a phone makes each once."""
        self._numbers = 0
        self.front: Front | None = None
        """The answer in place of the page; None: the page."""
        self.missing = ""
        """Modules that the page does not define, separated by commas."""

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

    def page(self, name: str = "") -> Client:
        """The newest open page (of that name)."""
        pages = [client for client in self.clients if not name or client.name == name]
        if not pages:
            raise LookupError(f"no page {name} is open")
        return pages[-1]

    def scan(self, account: str, name: str = "") -> str:
        """A phone of that account scans the code; its device's id, "" while a passkey is due."""
        client = self.page(name)
        if not client.code:
            raise LookupError("no code is shown")
        return self.pair(client, account)

    def enter_code(self, code: str) -> str:
        """A phone enters a pairing code."""
        for client in self.clients:
            if client.link_code and client.link_code == code:
                return self.pair(client, str(client.received[-1].get("phone", "")))
        raise LookupError("no page shows this code")

    def deliver(self, do: str, **more: Any) -> None:
        """Something for every linked device; it is kept until the device took it."""
        for device in self.devices:
            self._numbers += 1
            told = {"do": do, **more, "number": self._numbers}
            self.waiting.setdefault(device, {})[self._numbers] = told
            for client in self.clients:
                if client.device == device:
                    client.tell(**told)

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
        if raw.get("do") == "took":
            self.waiting.get(client.device, {}).pop(int(raw["number"]), None)
            return
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
                    for told in self.waiting.get(client.device, {}).values():
                        client.tell(**told)
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
                self._arrive(raw)
                if self.answers_sends:
                    client.tell("sent", id=raw.get("id"), key=raw.get("key"), result="OK", t=1)

    def _arrive(self, raw: Mapping[str, Any]) -> None:
        id, kind = str(raw.get("id")), raw.get("type")
        if kind not in ("edit", "revoke"):
            self.arrived.setdefault(id, raw)
            return
        target = self.arrived.get(str(raw.get("about")))
        if id in self.changed or target is None or target["to"] != raw["to"]:
            return
        self.changed.add(id)
        done = "edits" if kind == "edit" else "deletions"
        body = raw["body"] if kind == "edit" else ""
        self.arrived[str(raw["about"])] = {**target, "body": body, done: target.get(done, 0) + 1}

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
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
        }
        self.requests.append(head.split(" ", 2)[1])
        path = self.requests[-1].split("?")[0]
        if path == "/ws":
            await self._talk(reader, writer, fields.get("sec-websocket-key", ""))
        elif path == "/" and self.front is not None:
            if self.front.silent:
                await asyncio.Event().wait()
            front = self.front
            await _respond(writer, front.status, "text/html", front.body, front.headers)
        else:
            await _respond(writer, *self._answer(path))

    def _answer(self, path: str) -> tuple[str, str, bytes]:
        """Status, content type and content."""
        if path == "/keeper.js":
            return "200 OK", "text/javascript", KEEPER
        if path not in _FILES:
            return "404 Not Found", "text/plain", b"no such page"
        name, kind = _FILES[path]
        content = Path(__file__).with_name(name).read_bytes()
        if path == "/standin.js" and self.missing:
            content = f"globalThis.__missing = {json.dumps(self.missing)};\n".encode() + content
        return "200 OK", kind, content

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


async def _respond(
    writer: asyncio.StreamWriter, status: str, kind: str, content: bytes, headers: str = ""
) -> None:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\n{headers}"
        f"Content-Length: {len(content)}\r\nContent-Security-Policy: {_POLICY}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode() + content)
    await writer.drain()
