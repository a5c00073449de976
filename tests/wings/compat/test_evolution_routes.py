"""Requests of Evolution's clients to a real agent with a session of the sandbox."""

import asyncio
import base64
import json
import os
import signal
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from agent.api.http.call import plain_path
from agent.api.routes import ROUTES as OWN
from agent.wings.compat.face import ROUTES
from agent.wings.compat.files import encode
from tests.ports import free_port
from tests.wings.compat.conftest import CONTACT, ON, recorded, shape_of

TEXT, PEER = "/message/sendText/shop", "5511988887777"


class Server:
    """The agent as its clients see it."""

    def __init__(self, agent: Any, key: str) -> None:
        self.agent, self.key = agent, key
        self.url = f"http://{agent.listen}"

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        key: str | None = None,
        *,
        raw: bytes | None = None,
        kind: str = "",
    ) -> tuple[int, Any]:
        key = self.key if key is None else key
        headers = {**({"apikey": key} if key else {}), **({"Content-Type": kind} if kind else {})}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.request(method, self.url + path, json=body, data=raw) as answer,
        ):
            return answer.status, await answer.json()

    async def send(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        status, answer = await self.ask("POST", f"/message/{name}/shop", body)
        assert status == 201, answer
        return dict(answer)

    async def make_key(self, *scopes: str) -> str:
        made = await self.agent.do("POST", "/api/keys", {"name": "x", "scopes": list(scopes)})
        return str(made["token"])

    async def heard(self) -> list[dict[str, Any]]:
        found = await self.agent.do("GET", "/api/instance/shop/sandbox/heard")
        # When typing ends depends on how busy the machine is.
        return [each for each in found["messages"] if each["type"] != "paused"]


@pytest.fixture
async def start(make_agent, eventually):
    async def begin(more: str = ON) -> Server:
        agent = make_agent(more)
        agent.listen = f"127.0.0.1:{free_port()}"
        await agent.start()
        await agent.create("shop")
        await eventually(lambda: agent.status("shop"), "CONNECTED")
        made = Server(agent, "")
        made.key = await made.make_key("operate")
        return made

    return begin


CONTEXT = (".contextInfo.", ".message.locationMessage.contextInfo.", ".message.contactMessage.con")
"""What Evolution adds to each message by itself: nobody is named, nothing vanishes."""


def missing(ours: Any, real: Any) -> set[str]:
    lost = shape_of(real) - shape_of(ours)
    return {path for path in lost if not path.startswith(CONTEXT)}


async def test_what_is_sent_is_answered_in_evolutions_shape_and_arrives(start):
    server = await start()
    calls = {each["path"]: each for each in recorded("calls") if each["status"] == 201}
    hello = {"number": CONTACT, "text": "hello", "other": 1, "delay": 20}
    text = await server.send("sendText", hello)
    assert text["key"]["remoteJid"] == f"{CONTACT}@s.whatsapp.net"
    assert (text["key"]["fromMe"], text["status"]) == (True, "PENDING")
    assert text["message"] == {"conversation": "hello"}
    file = base64.b64encode(b"a picture").decode()
    media = {"number": f"{CONTACT}@s.whatsapp.net", "mediatype": "image", "caption": "look"}
    sent = [
        text,
        await server.send("sendMedia", {**media, "media": file, "fileName": "dot.png"}),
        await server.send("sendMedia", {**media, "media": f"data:image/png;base64,{file}"}),
        await server.send("sendMedia", {**media, "mediatype": "document", "media": file}),
        await server.send("sendWhatsAppAudio", {"number": CONTACT, "audio": file}),
    ]
    form = calls["/message/sendMedia/shop"]
    raw = form["body"].replace("5511988887777", CONTACT).encode("latin-1")
    status, answer = await server.ask("POST", form["path"], raw=raw, kind=form["type"])
    assert status == 201, answer
    sent.append(answer)
    place = {"number": CONTACT, "latitude": 1.5, "longitude": -2.5, "name": "here", "address": "1"}
    sent.append(await server.send("sendLocation", place))
    ana = {"fullName": "Ana", "wuid": "5511977776666", "phoneNumber": "+55 11 97777-6666"}
    sent.append(await server.send("sendContact", {"number": CONTACT, "contact": [ana]}))
    key = calls["/message/sendReaction/shop"]["body"]["key"]
    react = {"key": {**key, "remoteJid": CONTACT, "id": text["key"]["id"]}}
    sent.append(await server.send("sendReaction", {**react, "reaction": "👍"}))
    first, *heard = await server.heard()
    assert first["type"] == "typing"
    assert [each["id"] for each in heard] == [each["key"]["id"] for each in sent]
    types = "text media media media media media location contact reaction"
    assert [each["type"] for each in heard] == types.split()
    kinds = [each.get("mimetype") for each in heard[1:6]]
    document = "application/octet-stream"
    assert kinds == ["image/png", "image/png", document, "audio/ogg; codecs=opus", "image/png"]
    # What of a file only its session knows, and what the protocol's library adds.
    lost = ("url", "fileSha256", "fileEncSha256", "mediaKey", "directPath", "jpegThumbnail")
    lost += ("height", "width", "fileLength", "mediaKeyTimestamp", "scanLengths")
    lost += ("annotations", "interactiveAnnotations", "contextInfo")
    unsaid = missing(answer, form["answer"])
    assert {each.split(".")[3].rstrip("[]").partition(":")[0] for each in unsaid} == set(lost)
    names = ("sendText", "sendLocation", "sendContact")
    for name, ours in zip(names, [text, *sent[6:8]], strict=True):
        assert missing(ours, calls[f"/message/{name}/shop"]["answer"]) == set(), name
    assert missing(sent[-1], calls["/message/sendReaction/shop"]["answer"]) == set()


async def test_errors_have_evolutions_shape_and_a_key_has_its_own_rights_only(start):
    server = await start()
    refused = [each for each in recorded("calls") if each["status"] >= 400]
    refused = [each for each in refused if not each["path"].startswith("/no/")]  # ours has a page
    for call in refused:
        key = server.key if call["key"] == "right" else call["key"]
        status, answer = await server.ask(call["method"], call["path"], call["body"] or None, key)
        assert (status, shape_of(answer)) == (call["status"], shape_of(call["answer"])), call
        if "[[" in str(call["answer"]) or status != 400:
            assert answer == call["answer"]
    own, reads = await server.make_key("instance:shop"), await server.make_key("read")
    other = await server.make_key("instance:other")
    text = {"number": CONTACT, "text": "hello"}
    assert (await server.ask("POST", TEXT, text, own))[0] == 201
    for key in (reads, other):
        status, answer = await server.ask("POST", TEXT, text, key)
        assert (status, answer["response"]) == (401, {"message": "Unauthorized"})
    assert (await server.ask("GET", "/instance/connectionState/shop", key=reads))[0] == 200
    for key, names in ((server.key, ["shop"]), (own, ["shop"]), (other, [])):
        status, rows = await server.ask("GET", "/instance/fetchInstances", key=key)
        assert (status, [row["name"] for row in rows]) == (200, names)
    status, answer = await server.ask("POST", "/message/sendPoll/shop", {})
    assert (status, answer["response"]) == (
        404,
        {"message": ["Cannot POST /message/sendPoll/shop"]},
    )
    assert CONTACT not in server.agent.log.read_text()


@pytest.mark.parametrize(
    "number",
    ["http://127.0.0.1/latest", "order 4711 of 49151", f"{PEER}, 2", f"{PEER}/2", "12345abc"],
)
async def test_digits_of_anything_else_make_no_number(start, number):
    server = await start()
    status, answer = await server.ask("POST", TEXT, {"number": number, "text": "private"})
    assert status == 400, answer
    assert await server.heard() == []


async def test_messages_are_kept_while_their_worker_starts_again(start, eventually):
    """400 is the last word for these clients: they would not send them again."""
    server, texts = await start(), []
    for kill in range(2):
        pid = await server.agent.running_pid("shop")
        await eventually(lambda: server.agent.status("shop"), "CONNECTED")
        os.kill(pid, signal.SIGKILL)
        batch = [f"{kill} {number}" for number in range(12)]
        told = [{"number": f"{PEER[:-2]}{text[2:]:0>2}", "text": text} for text in batch]
        answers = await asyncio.gather(*(server.ask("POST", TEXT, each) for each in told))
        assert [status for status, _ in answers] == [201] * len(batch), answers
        texts += batch

    await eventually(lambda: server.agent.status("shop"), "CONNECTED", within=60)

    async def arrived() -> bool:
        return sorted(each["text"] for each in await server.heard()) == sorted(texts)

    await eventually(arrived, within=60)


async def test_an_instance_is_shown_as_evolution_shows_one(start, eventually):
    server = await start()
    calls = {each["path"]: each["answer"] for each in reversed(recorded("calls"))}
    status, rows = await server.ask("GET", "/instance/fetchInstances?instanceName=shop")
    real = calls["/instance/fetchInstances?instanceName=shop"]
    assert status == 200
    counts = {f"[]._count.{name}: number" for name in ("Chat", "Contact", "Message")}
    secret = {"[].token: str", "[].number: NoneType"}  # a key of ours is shown to nobody
    assert missing(rows, real) == counts | secret
    assert shape_of(rows) - shape_of(real) == {"[].token: NoneType", "[].number: str"}
    for path in ("/instance/connectionState/shop", "/instance/connect/shop"):
        status, answer = await server.ask("GET", path)
        assert answer == {"instance": {"instanceName": "shop", "state": "open"}}
    await server.agent.do("POST", "/api/instance/shop/stop")
    await eventually(lambda: server.agent.status("shop"), "DISCONNECTED")
    _, answer = await server.ask("GET", "/instance/connectionState/shop")
    assert answer["instance"]["state"] == "close"
    status, answer = await server.ask("POST", TEXT, {"number": CONTACT, "text": "later"})
    assert (status, answer["key"]["id"][:4], answer["status"]) == (201, "out_", "PENDING")
    await server.ask("GET", "/instance/connect/shop")
    await eventually(lambda: server.agent.status("shop"), "CONNECTED")
    await eventually(lambda: said(server), ["later"])
    body = {"id": "new", "engine": "sandbox", "settings": {"scan_after": 3600}}
    await server.agent.do("POST", "/api/instance", body)
    answer = await eventually(lambda: code_of(server, "new"), within=60)
    assert shape_of(answer) == shape_of(calls["/instance/connect/shop"]), answer
    assert answer["base64"].startswith("data:image/png;base64,")


async def code_of(server: Server, id: str) -> dict[str, Any] | None:
    _, answer = await server.ask("GET", f"/instance/connect/{id}")
    return None if answer == {"count": 0} else dict(answer)


async def said(server: Server) -> list[str]:
    return [each["text"] for each in await server.heard()]


async def test_what_a_public_client_asked_a_real_evolution_is_answered_alike(start, eventually):
    """Its requests, as they were recorded; scripts/real_evolution/client.py runs the client."""
    server = await start()
    say = {"contact": PEER, "text": "a question"}
    told = await server.agent.do("POST", "/api/instance/shop/sandbox/say", say)
    page = "/api/instance/shop/messages?wait=30"
    assert (await server.agent.do("GET", page))["records"][0]["message_id"] == told["id"]
    asked = [each for each in recorded("calls") if each["type"] == "application/json"]
    asked = asked[: 1 + [each["path"] for each in asked].index("/chat/findMessages/shop")]
    key = asked[4]["body"]["quoted"]["key"]
    for call in asked:
        text = json.dumps(call["body"]).replace(key["id"], told["id"])
        body = json.loads(text.replace(key["remoteJid"], f"{PEER}@s.whatsapp.net"))
        status, answer = await server.ask(call["method"], call["path"], body or None)
        assert status == call["status"], (call, answer)
        if "fetchInstances" not in call["path"] and "findMessages" not in call["path"]:
            assert missing(answer, call["answer"]) == set(), call
    heard = {each["type"]: each for each in await server.heard()}
    assert set(heard) == {"text", "location", "contact", "reaction", "read", "typing"}
    assert heard["text"]["quote"] == told["id"]
    assert heard["reaction"]["message_id"] == told["id"]
    own = {"remoteJid": f"{PEER}@s.whatsapp.net", "fromMe": True, "id": heard["text"]["id"]}
    change = {"number": PEER, "key": own, "text": "an edited one"}
    status, answer = await server.ask("POST", "/chat/updateMessage/shop", change)
    assert (status, answer["message"]) == (200, {"conversation": "an edited one"}), answer
    status, answer = await server.ask("DELETE", "/chat/deleteMessageForEveryone/shop", own)
    assert status == 201, answer
    assert [each["type"] for each in await server.heard()][-2:] == ["edit", "delete"]
    every = {"number": PEER, "text": "to all", "mentionsEveryOne": True}
    status, answer = await server.ask("POST", TEXT, every)
    assert (status, answer["error"]) == (400, "Bad Request")


async def test_the_file_of_a_message_is_given_in_base64(start, eventually):
    server = await start()
    for size in (1, 2, 3 * 192 * 1024 + 1):
        content = os.urandom(size)
        file = {"content": base64.b64encode(content).decode(), "mimetype": "image/png"}
        path = "/api/instance/shop/sandbox/say"
        id = (await server.agent.do("POST", path, {"contact": CONTACT, **file}))["id"]
        key = {"id": id, "remoteJid": f"{CONTACT}@s.whatsapp.net", "fromMe": False}
        await eventually(lambda id=id: kept(server, id))
        path = "/chat/getBase64FromMediaMessage/shop"
        status, answer = await server.ask("POST", path, {"message": {"key": key}})
        assert status == 201, answer
        assert base64.b64decode(answer.pop("base64"), validate=True) == content
        assert answer.pop("size")["fileLength"]["low"] == size
        assert (answer["mediaType"], answer["mimetype"]) == ("imageMessage", "image/png")
        assert set(answer) == {"mediaType", "mimetype", "fileName", "buffer"}
    status, answer = await server.ask("POST", path, {"message": {"key": {**key, "id": "none"}}})
    assert (status, answer["error"]) == (400, "Bad Request")
    assert (await server.ask("POST", path, {}))[0] == 400


async def kept(server: Server, id: str) -> bool:
    page = await server.agent.do("GET", "/api/instance/shop/messages")
    return id in [record["message_id"] for record in page["records"]]


async def test_kept_messages_are_found_newest_first(start, eventually):
    server = await start()
    for number in range(3):
        say = {"contact": CONTACT, "text": f"message {number}"}
        await server.agent.do("POST", "/api/instance/shop/sandbox/say", say)
    where = {"where": {"key": {"remoteJid": f"{CONTACT}@s.whatsapp.net"}}, "page": 1, "offset": 2}
    path = "/chat/findMessages/shop"

    async def found() -> int:
        return (await server.ask("POST", path, where))[1]["messages"]["total"]

    await eventually(found, 3)
    status, answer = await server.ask("POST", path, where)
    rows = answer["messages"].pop("records")
    assert (status, answer["messages"]) == (200, {"total": 3, "pages": 2, "currentPage": 1})
    assert [row["message"]["conversation"] for row in rows] == ["message 2", "message 1"]
    real = next(each for each in recorded("calls") if each["path"] == path)
    of_contact = [
        row
        for row in real["answer"]["messages"]["records"]
        if row["message"] == {"conversation": "@1"}
    ]
    assert missing(rows[0], of_contact[0]) == {".key.remoteJidAlt: str"}  # here is no other name
    _, answer = await server.ask("POST", path, {"where": {"key": {"remoteJid": "1@g.us"}}})
    assert answer["messages"]["records"] == []


async def test_off_its_paths_and_its_key_are_unknown(start):
    server = await start("")
    for path in ("/instance/fetchInstances", "/chat/any/thing"):
        status, answer = await server.ask("GET", path)
        assert (status, answer["error"]) == (404, "unknown_route")
    assert (await server.ask("GET", "/api/instances"))[0] == 401, "its header holds no key"
    on = server.agent.config.read_text() + ON
    server.agent.config.write_text(on)
    await server.agent.do("POST", "/api/reload", {})
    assert (await server.ask("GET", "/instance/connectionState/shop"))[0] == 200
    assert (await server.ask("GET", "/api/instances"))[0] == 401


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 100])
def test_parts_of_any_length_make_one_text_in_base64(step: int) -> None:
    content, text, rest = bytes(range(100)), b"", b""
    for at in range(0, len(content), step):
        last = at + step >= len(content)
        encoded, rest = encode(rest + content[at : at + step], last=last)
        text += encoded
    assert text == base64.b64encode(content)


def test_no_path_of_ours_is_hidden() -> None:
    router = web.Application().router
    known = {router.add_route(it.method, it.path, nothing).resource for it in ROUTES}
    for route in OWN:
        path = plain_path(route.path)
        assert not [each for each in known if each and each._match(path) is not None], path


async def nothing(_: web.Request) -> web.StreamResponse:
    raise AssertionError
