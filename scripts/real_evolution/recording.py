"""Record what a real Evolution server says: its webhooks and its answers to a public client, with
the stand-in for WhatsApp behind it. tests/wings/compat compares ours with these, field by field.

  python -m scripts.real_evolution.recording --server FOLDER --client PYTHON --to FOLDER

PYTHON is one that has the package `evolutionapi`. What differs from run to run is put out of the
recordings: ids, times, keys, addresses.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from scripts.real_evolution.bed import until
from scripts.real_evolution.server import KEY, RealServer, real_server
from tests.standin.baileys.run import WhatsApp, make_certificate

NAME, ACCOUNT, CONTACT = "shop", "5511900000001", "5511988887777"
CLIENT = Path("tests/wings/compat/evolution_client.py")
EVENTS = [
    *("QRCODE_UPDATED", "CONNECTION_UPDATE", "MESSAGES_UPSERT", "MESSAGES_EDITED"),
    *("MESSAGES_UPDATE", "MESSAGES_DELETE", "SEND_MESSAGE", "CALL", "STATUS_INSTANCE"),
    "LOGOUT_INSTANCE",
]
SETTLED = 3.0
"""Seconds without a webhook after which no more is expected."""
HIDDEN = re.compile(r"(?i)^token$|base64|mediaKey$|directPath|sha256|secret|hash|thumbnail|^code$")
_BOUNDARY = re.compile(r"[0-9a-f]{32}(?=\"|--|\\r)")


class Recorder:
    """Gets the webhooks, and stands between the client and the server."""

    def __init__(self, server: RealServer) -> None:
        self.server = server
        self.webhooks: list[dict[str, Any]] = []
        self.calls: list[dict[str, Any]] = []
        self.heard = asyncio.Event()
        self._client = aiohttp.ClientSession()
        self.url = ""

    async def open(self) -> web.AppRunner:
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/hook", self._hook)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    async def close(self) -> None:
        await self._client.close()

    async def settle(self) -> None:
        while True:
            self.heard.clear()
            try:
                await asyncio.wait_for(self.heard.wait(), SETTLED)
            except TimeoutError:
                return

    async def _hook(self, request: web.Request) -> web.Response:
        told = await request.json()
        if "Sync" not in str(told["data"]):  # keys of its own, which no receiver reads
            self.webhooks.append(told)
        self.heard.set()
        return web.Response()

    async def _pass_on(self, request: web.Request) -> web.Response:
        body = await request.read()
        kept = ("apikey", "content-type")
        headers = {name: it for name, it in request.headers.items() if name.lower() in kept}
        url = f"http://127.0.0.1:{self.server.port}{request.rel_url}"
        async with self._client.request(request.method, url, data=body, headers=headers) as answer:
            said = await answer.read()
        kind = request.headers.get("Content-Type", "")
        self.calls.append(
            {
                "method": request.method,
                "path": str(request.rel_url),
                "type": kind,
                "key": {KEY: "right"}.get(headers.get("apikey", ""), headers.get("apikey", "")),
                "body": json.loads(body) if body and "json" in kind else body.decode("latin-1"),
                "status": answer.status,
                "answer": json.loads(said),
            }
        )
        return web.Response(body=said, status=answer.status, content_type=answer.content_type)


async def record(source: Path, place: Path, client: Path) -> Recorder:
    tls = make_certificate(place)
    os.environ["NODE_EXTRA_CA_CERTS"] = str(tls[1])
    whatsapp = await asyncio.to_thread(WhatsApp, place / "whatsapp.log", tls)
    async with AsyncExitStack() as stack:
        stack.callback(whatsapp.end)
        server = await stack.enter_async_context(real_server(source, place, whatsapp.socket))
        recorder = Recorder(server)
        stack.push_async_callback(recorder.close)
        stack.push_async_callback((await recorder.open()).cleanup)
        await _pair(server, recorder, whatsapp)
        await asyncio.to_thread(write_messages, whatsapp)
        await recorder.settle()
        heard = [it["data"] for it in recorder.webhooks if it["event"] == "messages.upsert"]
        await _run(client, recorder, heard[1]["key"])  # the first one was taken back
        await recorder.settle()
        await _be_refused(recorder)
        await asyncio.to_thread(_acknowledge, whatsapp)
        await recorder.settle()
        await asyncio.to_thread(whatsapp.trouble, ACCOUNT, "drop")
        await recorder.settle()
        await asyncio.to_thread(whatsapp.trouble, ACCOUNT, "refuse", code=401)
        await asyncio.to_thread(whatsapp.trouble, ACCOUNT, "drop")
        await recorder.settle()
        return recorder


async def _pair(server: RealServer, recorder: Recorder, whatsapp: WhatsApp) -> None:
    await until(lambda: server.make(NAME), 60)
    hook = {"enabled": True, "url": f"{recorder.url}/hook", "events": EVENTS}
    status, answer = await server.ask("POST", f"/webhook/set/{NAME}", {"webhook": hook})
    assert status == 201, answer

    async def is_open() -> bool:
        return await server.state(NAME) == "open"

    code = await until(lambda: server.code(NAME), 60)
    shown = f"{recorder.url}/instance/connect/{NAME}"
    async with aiohttp.ClientSession(headers={"apikey": KEY}) as http, http.get(shown):
        pass
    await asyncio.to_thread(whatsapp.scan, code, ACCOUNT)
    await until(is_open, 60)
    await recorder.settle()


def write_messages(whatsapp: WhatsApp) -> None:
    """A contact writes one message of each kind."""
    jid = f"{CONTACT}@s.whatsapp.net"
    first = whatsapp.say(CONTACT, ACCOUNT, "good morning")
    key = {"remoteJid": f"{ACCOUNT}@s.whatsapp.net", "id": first, "fromMe": True}
    hash32 = "A" * 43 + "="
    file = {"mediaKey": hash32, "fileSha256": hash32, "fileEncSha256": hash32, "fileLength": 2048}
    file |= {"directPath": "/v/1", "url": "https://mmg.whatsapp.net/v/1", "mediaKeyTimestamp": 1}
    picture = {**file, "mimetype": "image/jpeg", "width": 4, "height": 3}
    quoted = {
        "stanzaId": first,
        "participant": jid,
        "quotedMessage": {"conversation": "good morning"},
    }
    messages: list[dict[str, Any]] = [
        {"extendedTextMessage": {"text": "a reply", "contextInfo": quoted}},
        {"extendedTextMessage": {"text": "@1", "contextInfo": {"mentionedJid": [jid]}}},
        {"imageMessage": {**picture, "caption": "look"}},
        {"videoMessage": {**file, "mimetype": "video/mp4", "seconds": 9}},
        {"audioMessage": {**file, "mimetype": "audio/ogg; codecs=opus", "seconds": 3, "ptt": True}},
        {"documentMessage": {**file, "mimetype": "application/pdf", "fileName": "offer.pdf"}},
        {"stickerMessage": {**file, "mimetype": "image/webp", "width": 64, "height": 64}},
        {"locationMessage": {"degreesLatitude": 1.5, "degreesLongitude": 2.5, "name": "here"}},
        {"contactMessage": {"displayName": "Ana", "vcard": "BEGIN:VCARD\nFN:Ana\nEND:VCARD"}},
        {"pollCreationMessageV3": {"name": "when?", "options": [{"optionName": "now"}],
                                   "selectableOptionsCount": 1}},
        {"reactionMessage": {"key": key, "text": "👍", "senderTimestampMs": "1"}},
        {"protocolMessage": {"key": {**key, "fromMe": False}, "type": "MESSAGE_EDIT",
                             "editedMessage": {"conversation": "good evening"}}},
        {"protocolMessage": {"key": {**key, "fromMe": False}, "type": "REVOKE"}},
    ]  # fmt: skip
    for message in messages:
        whatsapp.say_message(CONTACT, ACCOUNT, message)
    group = "120363000000000001@g.us"
    whatsapp.make_group(group, [ACCOUNT, CONTACT])
    whatsapp.say_in_group(CONTACT, ACCOUNT, group, "hello group")


def _acknowledge(whatsapp: WhatsApp) -> None:
    """The contact's phone got and read what it heard."""
    jid = f"{CONTACT}@s.whatsapp.net"
    for heard in whatsapp.person(CONTACT)["heard"][:1]:
        for more in ({}, {"type": "read"}):
            stanza = {"tag": "receipt", "attrs": {"id": heard["id"], "from": jid, "t": "1", **more}}
            whatsapp.tell("/put", {"user": ACCOUNT, "stanza": stanza})


async def _run(client: Path, recorder: Recorder, key: dict[str, Any]) -> None:
    told = (recorder.url, KEY, NAME, CONTACT, json.dumps(key))
    process = await asyncio.create_subprocess_exec(client, CLIENT, *told)
    assert await process.wait() == 0


async def _be_refused(recorder: Recorder) -> None:
    text = {"number": CONTACT, "text": "hello"}
    wrong: list[tuple[str, str, Any, str]] = [
        ("GET", "/instance/connectionState/nobody", None, KEY),
        ("GET", f"/instance/connectionState/{NAME}", None, "wrong"),
        ("GET", f"/instance/connectionState/{NAME}", None, ""),
        ("GET", "/instance/fetchInstances?instanceName=nobody", None, KEY),
        ("GET", f"/instance/fetchInstances?instanceName={NAME}", None, KEY),
        ("GET", "/instance/fetchInstances", None, "wrong"),
        ("POST", f"/message/sendText/{NAME}", {"number": CONTACT}, KEY),
        ("POST", f"/message/sendText/{NAME}", {"number": CONTACT, "text": 5}, KEY),
        ("POST", f"/message/sendText/{NAME}", {"text": "hello"}, KEY),
        ("POST", f"/message/sendText/{NAME}", {"number": "12", "text": "hello"}, KEY),
        ("POST", "/message/sendText/nobody", text, KEY),
        ("POST", f"/message/sendText/{NAME}", text, "wrong"),
        ("POST", f"/message/sendMedia/{NAME}", {"number": CONTACT}, KEY),
        ("POST", f"/message/sendMedia/{NAME}", {"number": CONTACT, "mediatype": "image",
                                                "media": "!!"}, KEY),
        ("POST", f"/message/sendReaction/{NAME}", {"reaction": "x"}, KEY),
        ("POST", f"/chat/markMessageAsRead/{NAME}", {}, KEY),
        ("POST", f"/chat/sendPresence/{NAME}", {"number": CONTACT}, KEY),
        ("GET", "/no/such/route", None, KEY),
        ("POST", f"/chat/whatsappNumbers/{NAME}", {"numbers": [CONTACT]}, KEY),
        ("POST", f"/chat/findMessages/{NAME}", {"page": 1, "offset": 2}, KEY),
        ("GET", "/", None, KEY),
    ]  # fmt: skip
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http:
        for method, path, body, key in wrong:
            headers = {"apikey": key} if key else {}
            async with http.request(method, recorder.url + path, json=body, headers=headers):
                pass


def plain(value: Any) -> Any:
    """Without what differs from run to run, and without what looks like a secret."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value and all(key.isdigit() for key in value):
        return "(bytes)"
    if set(value) == {"type", "data"} and value["type"] == "Buffer":
        return {"type": "Buffer", "data": []}
    return {
        key: "(hidden)" if HIDDEN.search(key) and isinstance(it, str) else plain(it)
        for key, it in value.items()
    }


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--client", type=Path, required=True, metavar="PYTHON")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="wa-evolution-", dir="/var/tmp") as folder:
        place = Path(folder)
        place.chmod(0o711)  # PostgreSQL runs as a user of its own
        recorder = asyncio.run(record(options.server, place, options.client))
    for name in ("webhooks", "calls"):
        said = json.dumps(plain(getattr(recorder, name)), indent=1, ensure_ascii=False)
        said = _BOUNDARY.sub("boundary", said).replace(KEY, "(key)")
        said = said.replace(recorder.url, "http://ours").replace(
            f"127.0.0.1:{recorder.server.port}", "server"
        )
        (options.to / f"{name}.json").write_text(said + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
