"""The stand-in of WhatsApp Web with what only tests need: whole phones, and faults on command."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from tests.standin.web import server
from tests.standin.web.client import Client
from tests.standin.web.fronts import KEEPER, Front
from tests.standin.web.server import Answer, Request, write_head


class StandIn(server.StandIn):
    """WhatsApp as far as the page can see it."""

    def __init__(self, **times: Any) -> None:
        super().__init__(**times)
        self.requests: list[str] = []
        self.heads: list[str] = []
        """The requests' heads, as the browser sent them."""
        self.answers_sends = True
        self.waiting: dict[str, dict[int, dict[str, Any]]] = {}
        """What each device has not taken yet, by numbers that go on."""
        self.arrived: dict[str, Mapping[str, Any]] = {}
        """What the peers' phones show of the messages sent to them: one of each id."""
        self.changed: set[str] = set()
        """Ids of edits and deletions: a phone makes each once."""
        self._numbers = 0
        self.front: Front | None = None
        """What comes in place of the page; None: the page."""
        self.missing = ""
        """Modules that the page does not define, separated by commas."""

    def page(self, name: str = "") -> Client:
        """The newest open page (of that name)."""
        pages = [client for client in self.clients if not name or client.name == name]
        if not pages:
            raise LookupError(f"no page {name} is open")
        return pages[-1]

    def scan(self, account: str, name: str = "") -> str:
        """A phone of that account scans the code; its device's id, "" while a passkey is due."""
        return self.scan_of(self.page(name), account)

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

    def take(self, client: Client, raw: Mapping[str, Any]) -> None:
        if raw.get("do") == "took":
            self.waiting.get(client.device, {}).pop(int(raw["number"]), None)
            return
        if raw.get("do") == "send":
            self._arrive(raw)
        self._answer_page(client, raw)
        if raw.get("do") == "hello" and client.device in self.devices:
            for told in self.waiting.get(client.device, {}).values():
                client.tell(**told)

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

    def _answer_page(self, client: Client, raw: Mapping[str, Any]) -> None:
        if raw.get("do") == "send" and not self.answers_sends:
            client.received.append(raw)
        else:
            super().take(client, raw)

    async def read_request(self, reader: asyncio.StreamReader) -> Request:
        request = await super().read_request(reader)
        self.requests.append(request.head.split(" ", 2)[1])
        self.heads.append(request.head)
        return request

    async def respond(self, writer: asyncio.StreamWriter, request: Request) -> None:
        if self.front is not None and request.path == "/":
            await _send_front(writer, self.front)
        else:
            await super().respond(writer, request)

    def answer(self, request: Request) -> Answer:
        if request.path == "/keeper.js":
            return "200 OK", "text/javascript", KEEPER
        status, kind, content = super().answer(request)
        if request.path == "/standin.js" and self.missing:
            content = f"globalThis.__missing = {json.dumps(self.missing)};\n".encode() + content
        return status, kind, content


async def _send_front(writer: asyncio.StreamWriter, front: Front) -> None:
    """A silent one never ends."""
    if front.silent:
        await asyncio.Event().wait()
    write_head(writer, front.status, "text/html", len(front.body), front.headers)
    writer.write(front.body)
    await writer.drain()
