"""What is sent through a server, in both of its dialects, and what is known of it afterwards."""

import asyncio
import time
from base64 import b64encode
from typing import Any

import pytest

from agent.engines.evolution.chat import files
from agent.engines.evolution.chat.records import stored_records
from agent.errors import EngineError, InvalidRequest
from tests.engines.evolution.conftest import Bench, MakeBench, MakeStandIn
from tests.standin.evolution.instances import Instance
from tests.standin.evolution.store import LID, OWNER_JID

PEER = "5511777776666"
GROUP = "120363000000000001@g.us"


@pytest.fixture(params=["1.8.6", "2.3.6"])
async def line(
    request: pytest.FixtureRequest, make_stand_in: MakeStandIn, make_bench: MakeBench
) -> tuple[Bench, Any, Instance]:
    standin = await make_stand_in(request.param)
    instance = standin.add("sales", "open")
    bench = await make_bench(standin)
    await bench.backend.check()
    session = bench.hold("sales")
    await session.probe()
    return bench, session, instance


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"to": PEER, "type": "text", "text": words, **more}


async def test_each_type_goes_out(line: tuple[Bench, Any, Instance]) -> None:
    bench, session, instance = line
    told = bench.standin.arrive("sales", {"conversation": "what it was"}, told=False)
    reply = await session.send(text("yes", quote=told, quote_from=OWNER_JID))
    assert instance.sent[-1]["contextInfo"]["stanzaId"] == told
    assert instance.sent[-1]["contextInfo"]["quotedMessage"] == {"conversation": "what it was"}
    named = text("hello", mentions=[OWNER_JID]) | {"to": GROUP}
    await session.send(named)
    assert instance.sent[-1]["contextInfo"]["mentionedJid"] == [OWNER_JID]
    place = {"latitude": 1.5, "longitude": 2.5, "name": "here"}
    await session.send({"to": PEER, "type": "location", **place})
    assert instance.sent[-1]["message"]["locationMessage"]["degreesLatitude"] == 1.5
    await session.send({"to": PEER, "type": "location", "latitude": 1.5, "longitude": 2.5})
    await session.send({"to": PEER, "type": "contact", "name": "Eve", "phone": "+55 11 9"})
    assert instance.sent[-1]["message"]["contactMessage"]["displayName"] == "Eve"
    about = {"to": PEER, "message_id": told, "sender": OWNER_JID}
    await session.send({**about, "type": "reaction", "emoji": "\N{THUMBS UP SIGN}"})
    key = instance.sent[-1]["message"]["reactionMessage"]["key"]
    # By the name under which the server itself has it.
    assert key["remoteJid"] == (OWNER_JID if bench.standin.old else LID)
    own = {"to": PEER, "message_id": reply["id"], "sender": "me"}
    await session.send({**own, "type": "edit", "text": "no"})
    await session.send({**own, "type": "delete"})
    edit, delete = instance.changes
    assert (edit["type"], edit["text"], edit["key"]["id"]) == ("MESSAGE_EDIT", "no", reply["id"])
    assert (delete["type"], delete["key"]["fromMe"]) == ("REVOKE", True)
    types = [it.detail["type"] for it in bench.by_id["sales"].happenings if it.kind == "message"]
    assert types == [
        "text",
        "text",
        "location",
        "location",
        "contact",
        "reaction",
        "edit",
        "delete",
    ]


def media(mimetype: str, content: bytes = b"a file", **more: Any) -> dict[str, Any]:
    whole = {} if "url" in more or "upload" in more else {"content": b64encode(content).decode()}
    return {"to": PEER, "type": "media", "mimetype": mimetype, **whole, **more}


async def test_files_go_out_as_what_they_are(line: tuple[Bench, Any, Instance]) -> None:
    bench, session, instance = line
    told = bench.standin.arrive("sales", {"conversation": "what it was"}, told=False)
    answer = await session.send(media("image/png", caption="look", quote=told))
    assert answer["outcome"] == "sent"
    assert bench.standin.chat.files[answer["id"]] == b"a file"
    assert instance.sent[-1]["message"]["imageMessage"]["caption"] == "look"
    assert instance.sent[-1]["contextInfo"]["stanzaId"] == told
    await session.send(media("video/mp4"))
    assert "videoMessage" in instance.sent[-1]["message"]
    await session.send(media("audio/mpeg"))
    assert "ptt" not in instance.sent[-1]["message"]["audioMessage"]
    await session.send(media("audio/ogg; codecs=opus"))
    assert instance.sent[-1]["message"]["audioMessage"]["ptt"] is True
    for mimetype, named, name in (
        ("application/pdf", "bill.pdf", "bill.pdf"),
        ("application/pdf", "bill 7", "bill 7.pdf"),
        ("application/x-of-ours", "", "file.bin"),
    ):
        await session.send(media(mimetype, **({"filename": named} if named else {})))
        shown = instance.sent[-1]["message"]["documentMessage"]
        assert shown["fileName"] == name
        assert shown["mimetype"] != "false"
    await session.send(media("image/png", url="https://files.example.org/a.png"))
    assert "imageMessage" in instance.sent[-1]["message"]


async def test_a_long_file_comes_in_parts_and_once(line: tuple[Bench, Any, Instance]) -> None:
    bench, session, _ = line
    file = bytes(range(250)) * 3000
    whole = b64encode(file).decode()
    for index, start in enumerate(range(0, len(whole), 256 * 1024)):
        part = {"upload": "a" * 32, "index": index, "data": whole[start : start + 256 * 1024]}
        await session.command("file_part", part)
    message = media("application/pdf", upload="a" * 32, size=len(file), filename="a.pdf")
    answer = await session.send({**message, "key": "k1"})
    assert bench.standin.chat.files[answer["id"]] == file
    assert await session.send({**message, "key": "k1"}) == answer
    with pytest.raises(EngineError) as lost:
        await session.send({**message, "key": "k2"})
    assert lost.value.code == "file_lost"


async def test_files_that_cannot_go_out_are_refused_by_name(
    line: tuple[Bench, Any, Instance], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, session, instance = line
    for url in ("http://files.example.org/a.png", "file:///etc/passwd", ""):
        with pytest.raises(InvalidRequest) as wrong:
            await session.send(media("image/png", url=url))
        assert wrong.value.field == "url"
    with pytest.raises(InvalidRequest) as refused:  # the server takes no address without a dot
        await session.send(media("image/png", url="https://localhost/a.png"))
    assert refused.value.field == "url"
    bench.standin.chat.largest = 1000
    with pytest.raises(EngineError) as large:
        await session.send(media("image/png", b"x" * 2000))
    assert large.value.code == "file_too_large"
    monkeypatch.setattr(files, "LARGEST", 3000)
    part = {"upload": "b" * 32, "index": 0, "data": "eHh4" * 1000}
    await session.command("file_part", part)
    with pytest.raises(EngineError) as too_long:
        await session.command("file_part", {**part, "index": 1})
    assert too_long.value.code == "file_too_large"
    with pytest.raises(EngineError) as missing:
        await session.command("file_part", {**part, "index": 5})
    assert missing.value.code == "file_lost"
    for number in range(files.AT_ONCE):
        await session.command("file_part", {**part, "upload": str(number)})
    with pytest.raises(EngineError) as many:
        await session.command("file_part", {**part, "upload": "one more"})
    assert many.value.code == "busy"
    assert instance.sent == []


async def test_what_a_version_cannot_is_refused(line: tuple[Bench, Any, Instance]) -> None:
    bench, session, instance = line
    with pytest.raises(InvalidRequest) as wrong:
        await session.send({"to": PEER, "type": "poll"})
    assert wrong.value.field == "type"
    # A real server sends it as no reply, and says nothing.
    with pytest.raises(EngineError) as lost:
        await session.send(text("yes", quote="3EB0NOBODYHASIT"))
    assert lost.value.code == "message_not_found"
    await session.send(text("yes", quote="3EB0NOBODYHASIT", quote_text="as kept here"))
    assert instance.sent[-1]["contextInfo"]["quotedMessage"] == {"conversation": "as kept here"}
    back = {"to": PEER, "type": "reaction", "message_id": "A", "sender": OWNER_JID, "emoji": ""}
    if bench.standin.old:
        with pytest.raises(EngineError) as refused:
            await session.send(back)
        assert refused.value.code == "not_supported"
    else:
        await session.send(back)
        with pytest.raises(EngineError) as unknown:
            await session.send({"to": PEER, "type": "edit", "message_id": "A", "text": "x"})
        assert unknown.value.code == "message_not_found"
    assert len(instance.sent) == (1 if bench.standin.old else 2)


async def test_an_answer_that_never_came_is_looked_up_and_nothing_is_sent_twice(
    line: tuple[Bench, Any, Instance],
) -> None:
    bench, session, instance = line
    first = await session.send(text("hello", key="k0"))
    bench.standin.chat.loses_answers = 1
    second = await session.send(text("hello", key="k1"))
    assert [first["outcome"], second["outcome"]] == ["sent", "sent"]
    # The same words were sent before: which of both it is, is known all the same.
    assert second["id"] == instance.sent[1]["key"]["id"] != first["id"]
    bench.standin.chat.fails = 1
    third = await session.send(text("never", key="k2"))
    assert third["outcome"] == "unknown"
    for key in ("k1", "k2"):  # an agent that was killed asks again
        again = await session.send(text("hello" if key == "k1" else "never", key=key))
        assert again == (second if key == "k1" else third)
    assert len(instance.sent) == 2


async def test_what_came_of_a_message_is_told_to_whoever_asks_later(
    line: tuple[Bench, Any, Instance],
) -> None:
    bench, session, instance = line
    begun = time.time()
    sent = await session.send(text("one", key="k1"))
    assert await session.sent(text("one", key="k1"), begun) == sent
    # Another worker sent this: its server has it.
    other = dict(instance.sent[0])
    other["key"] = {**other["key"], "id": "3EB0OTHER"}
    other["message"] = {"conversation": "two"}
    instance.stored.append(other)
    found = await session.sent(text("two", key="k2"), begun)
    assert (found["id"], found["outcome"]) == ("3EB0OTHER", "sent")
    # Two that fit, or one of before: it could be another one.
    instance.stored.append({**other, "key": {**other["key"], "id": "3EB0TWIN"}})
    instance.stored.append({**other, "key": {**other["key"], "id": "3EB0TWIN2"}})
    assert (await session.sent(text("two", key="k3"), begun))["outcome"] == "unknown"
    # This worker was there all the time, and would know of it.
    assert (await session.sent(text("one", key="k4"), begun + 60))["outcome"] == "not_sent"
    bench.standin.chat.fails = 1
    assert (await session.send(text("three", key="k5")))["outcome"] == "unknown"
    late = {**other, "key": {**other["key"], "id": "3EB0LATE"}}
    instance.stored.append({**late, "message": {"conversation": "three"}})
    assert (await session.sent(text("three", key="k5"), begun))["id"] == "3EB0LATE"


async def test_a_send_goes_on_when_its_agent_is_gone(line: tuple[Bench, Any, Instance]) -> None:
    bench, session, instance = line
    await bench.standin.front.set("slow", 0.2, "/message/")
    asking = asyncio.create_task(session.send(text("one", key="k1")))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    answer = await session.sent(text("one", key="k1"), time.time())
    assert (answer["outcome"], answer["id"]) == ("sent", instance.sent[0]["key"]["id"])
    assert await session.send(text("one", key="k1")) == answer
    assert len(instance.sent) == 1


async def test_a_refused_message_may_be_sent_again(line: tuple[Bench, Any, Instance]) -> None:
    _, session, instance = line
    instance.dead = "closed"
    with pytest.raises(EngineError) as refused:
        await session.send(text("one", key="k1"))
    assert refused.value.code == "not_connected"
    instance.dead = ""
    assert (await session.send(text("one", key="k1")))["outcome"] == "sent"


async def test_reading_and_typing_are_told(line: tuple[Bench, Any, Instance]) -> None:
    bench, session, instance = line
    await session.mark_read({"chat": OWNER_JID, "message_ids": ["A", "B"], "sender": ""})
    assert instance.changes == [{"read": "A"}, {"read": "B"}]
    await session.presence({"state": "typing", "chat": OWNER_JID, "seconds": 0.05})
    await session.presence({"state": "paused", "chat": OWNER_JID, "seconds": 0})
    shown = [it["presence"] for it in instance.changes[2:]]
    assert shown == ["composing", "paused"]
    instance.logins = 1
    await session.presence({"state": "unavailable", "chat": "", "seconds": 0})
    assert bench.standin.asked["POST /instance/setPresence"] == 1
    instance.state = "close"
    await session.probe()
    for act in (
        session.mark_read({"chat": OWNER_JID, "message_ids": ["A"], "sender": ""}),
        session.presence({"state": "typing", "chat": OWNER_JID, "seconds": 1}),
    ):
        with pytest.raises(EngineError) as refused:
            await act
        assert refused.value.code == "not_connected"


async def test_the_file_of_a_message_is_loaded_by_its_server(
    line: tuple[Bench, Any, Instance],
) -> None:
    bench, session, instance = line
    image = {"imageMessage": {"mimetype": "image/jpeg", "fileLength": "700000"}}
    id = bench.standin.arrive("sales", image, told=False)
    bench.standin.chat.files[id] = file = bytes(range(250)) * 2800
    (record,) = stored_records(instance.stored[0])
    pieces = [piece async for piece in session.load_media(record)]
    assert b"".join(pieces) == file
    assert len(pieces) > 2
    del bench.standin.chat.files[id]
    with pytest.raises(EngineError) as gone:
        [piece async for piece in session.load_media(record)]
    assert gone.value.code == "media_gone"
    await bench.standin.front.set("refuse")
    with pytest.raises(EngineError) as away:
        [piece async for piece in session.load_media(record)]
    assert away.value.code == "media_unreachable"
