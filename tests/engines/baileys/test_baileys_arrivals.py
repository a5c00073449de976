"""Each arrival is kept before WhatsApp hears that it was taken: once each, and none lost."""

import asyncio
import base64
import time
from typing import Any

import pytest

from tests.engines.baileys.conftest import ACCOUNT, PEER, Bench
from tests.engines.baileys.keepers import Spool, spool_of

pytestmark = pytest.mark.slow
LID, NUMBER = f"1{PEER}@lid", f"{PEER}@s.whatsapp.net"


@pytest.fixture
async def keeping(bench: Bench) -> Bench:
    """A connected session whose worker keeps what arrives."""
    bench.hearing = Spool
    await bench.come_paired()
    return bench


async def say(bench: Bench, message: dict[str, Any] | str, sender: str = PEER) -> str:
    told = {"conversation": message} if isinstance(message, str) else message
    return await asyncio.to_thread(bench.whatsapp.say_message, sender, ACCOUNT, told)


async def test_a_message_is_kept_before_its_receipt_leaves(keeping: Bench) -> None:
    spool = spool_of(keeping)
    await keeping.hear("first")
    folder, asked = keeping.folder, spool.asked
    spool.goes_on.clear()
    id = await say(keeping, "hello")
    await keeping.until(lambda: spool.asked > asked)
    # The message's key is on the disk as well by then, and replaces the last one when it is kept.
    (new,) = await keeping.until(lambda: list(folder.glob(".session-*.tmp")))
    key = folder / f"{new.name[1:].partition('.json')[0]}.json"
    before = key.read_bytes()
    await keeping.engine.probe(deep=True)  # what would have left before has arrived
    assert keeping.whatsapp.receipts(ACCOUNT, id) == []
    assert keeping.whatsapp.device(ACCOUNT)["unconfirmed"] == 1
    spool.goes_on.set()
    await keeping.until(lambda: keeping.whatsapp.receipts(ACCOUNT, id))
    await keeping.until(lambda: keeping.heard.count("message", id=id))
    assert key.read_bytes() != before
    assert spool.given[-1] == f"m:{LID}:{LID}:{id}" and spool.given.count(spool.given[-1]) == 1
    record = dict(spool.of("message")[-1])
    assert abs(record.pop("at") - time.time()) < 60
    names = {"id": f"m:{LID}:{LID}:{id}", "message_id": id, "_raw": {"chat": LID, "sender": LID}}
    people = {"chat": NUMBER, "sender": NUMBER, "alias": LID, "name": PEER, "from_me": False}
    assert record == {**names, **people, **text("hello"), "kind": "message", "fresh": True}


QUOTED = {"stanzaId": "3EB0AA", "participant": NUMBER, "quotedMessage": {"conversation": "before"}}
PICTURE = {
    "mimetype": "image/jpeg",
    "fileLength": 1234,
    "fileSha256": base64.b64encode(b"h" * 32).decode(),
    "fileEncSha256": base64.b64encode(b"e" * 32).decode(),
    "mediaKey": base64.b64encode(b"k" * 32).decode(),
    "directPath": "/v/t62.7118-24/1",
    "url": "https://mmg.whatsapp.net/1",
}
KEYS = {"key": PICTURE["mediaKey"], "path": PICTURE["directPath"], "url": PICTURE["url"]}
KEYS |= {"sealed": PICTURE["fileEncSha256"], "chat": LID}
FACTS = {"mimetype": "image/jpeg", "size": 1234, "sha256": "68" * 32}
ONCE = {"message": {"imageMessage": {**PICTURE, "caption": "once"}}}
SHOT = {"seconds": 7, "width": 640, "height": 480}
PAPER = {"message": {"documentMessage": {**PICTURE, "fileName": "a.pdf", "caption": "read"}}}
QUOTE = {"message_id": "3EB0AA", "sender": NUMBER, "text": "before"}
REPLY = {"text": "hi @1", "contextInfo": {**QUOTED, "mentionedJid": [NUMBER]}}
PLACE = {"name": "here", "address": "Rua 1"}
CARD = {"displayName": "Ana", "vcard": "BEGIN:VCARD\nFN:Ana\nEND:VCARD"}
TARGET = {"remoteJid": NUMBER, "id": "3EB0BB", "fromMe": False}
EDITED = {"key": TARGET, "type": 14, "editedMessage": {"conversation": "better"}}
POLL = {"name": "When?", "options": [{"optionName": "now"}, {"optionName": "then"}]}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


KINDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"extendedTextMessage": {"text": "hi"}}, text("hi")),
    ({"extendedTextMessage": REPLY}, {**text("hi @1"), "quote": QUOTE, "mentions": [NUMBER]}),
    (
        {"viewOnceMessageV2": ONCE},
        {"type": "image", "text": "once", "media": FACTS, "_media": KEYS},
    ),
    (
        {"videoMessage": {**PICTURE, **SHOT}},
        {"type": "video", "media": {**FACTS, **SHOT}, "_media": KEYS},
    ),
    (
        {"documentWithCaptionMessage": PAPER},
        {
            "type": "document",
            "text": "read",
            "media": {**FACTS, "filename": "a.pdf"},
            "_media": KEYS,
        },
    ),
    (
        {"locationMessage": {"degreesLatitude": -23.5, "degreesLongitude": -46.5, **PLACE}},
        {"type": "location", "location": {"latitude": -23.5, "longitude": -46.5, **PLACE}},
    ),
    (
        {"contactsArrayMessage": {"contacts": [CARD, CARD]}},
        {"type": "contact", "contacts": [{"name": "Ana", "vcard": CARD["vcard"]}] * 2},
    ),
    (
        {"pollCreationMessageV3": {**POLL, "selectableOptionsCount": 1}},
        {
            "type": "poll",
            "poll": {"question": "When?", "options": ["now", "then"], "several": False},
        },
    ),
    ({"groupInviteMessage": {"groupJid": "1@g.us", "inviteCode": "x"}}, {"type": "other"}),
    (
        {"reactionMessage": {"key": TARGET, "text": "👍"}},
        {"kind": "message_reaction", "emoji": "👍"},
    ),
    ({"protocolMessage": EDITED}, {"kind": "message_edit", "text": "better"}),
    ({"protocolMessage": {"key": TARGET, "type": 0}}, {"kind": "message_delete"}),
    (
        {"pollUpdateMessage": {"pollCreationMessageKey": TARGET, "vote": {}}},
        {"kind": "message_vote"},
    ),
]
"""Pairs of what is sent, and its record's fields beside those of each record; the kind is
`message` unless given."""


async def test_every_kind_of_message_becomes_its_record(keeping: Bench) -> None:
    spool = spool_of(keeping)
    for message, fields in KINDS:
        had = set(spool.kept)
        id = await say(keeping, message)
        await keeping.until(lambda id=id: keeping.whatsapp.receipts(ACCOUNT, id))
        [new] = set(spool.kept) - had
        found, kind = dict(spool.kept[new]), fields.get("kind", "message")
        if kind == "message":
            assert (found.pop("fresh"), found.pop("name")) == (True, PEER)
            assert found.pop("_raw") == {"chat": LID, "sender": LID}
        common = {"chat": NUMBER, "from_me": False, "sender": NUMBER, "alias": LID, "kind": kind}
        target = id if kind == "message" else TARGET["id"]
        letter = "m" if kind == "message" else kind[len("message_")]
        assert found.pop("id").startswith(f"{letter}:{LID}:{LID}:")
        assert found.pop("at") > 0
        assert found == {**common, "message_id": target, **fields}


async def test_a_message_that_comes_a_second_time_is_kept_under_the_same_id(keeping: Bench) -> None:
    """The peer sends it again under new keys, as at a retry, in another session with it."""
    id = await say(keeping, "once")
    spool = spool_of(keeping)
    await keeping.until(lambda: keeping.whatsapp.receipts(ACCOUNT, id))
    told = {"from": PEER, "to": ACCOUNT, "message": {"conversation": "once"}, "id": id}
    await asyncio.to_thread(keeping.whatsapp.tell, "/say", told)
    await keeping.until(lambda: len(spool.given) == 2)
    assert len(spool.kept) == 1


async def test_what_the_phone_writes_is_kept_as_the_accounts_own(keeping: Bench) -> None:
    message = {"deviceSentMessage": {"destinationJid": NUMBER, "message": {"conversation": "own"}}}
    told = {"from": ACCOUNT, "to": ACCOUNT, "message": message, "attrs": {"recipient": NUMBER}}
    await asyncio.to_thread(keeping.whatsapp.tell, "/say", told)
    spool = spool_of(keeping)
    await keeping.until(lambda: spool.kept)
    [record] = spool.of("message")
    assert record["text"] == "own"
    assert record["from_me"] is True
    assert record["chat"] == NUMBER
    assert record["sender"] == f"{ACCOUNT}@s.whatsapp.net"
    assert record["id"] == f"m:{NUMBER}:me:{record['message_id']}"


async def test_what_is_sent_here_is_kept_with_each_state_that_its_receiver_tells(
    keeping: Bench,
) -> None:
    id = (await keeping.engine.send({"to": PEER, "type": "text", "text": "out"}))["id"]
    spool = spool_of(keeping)
    await keeping.until(lambda: len(spool.of("message_ack")) == 2 and spool.of("message"))
    [message] = spool.of("message")
    assert (message["from_me"], message["text"], message["message_id"]) == (True, "out", id)
    acks = {each["state"]: each for each in spool.of("message_ack")}
    assert set(acks) == {"server", "delivered"}
    assert {each["message_id"] for each in acks.values()} == {id}
    read = {"id": id, "type": "read", "t": "1800000000", "from": NUMBER}
    await put(keeping, {"tag": "receipt", "attrs": read})
    await keeping.until(lambda: len(spool.of("message_ack")) == 3)
    last = spool.of("message_ack")[-1]
    assert (last["state"], last["chat"], last["at"]) == ("read", NUMBER, 1_800_000_000)
    assert last["id"] == f"a:{id}:{NUMBER}:read"


async def test_a_call_is_kept_before_it_is_acknowledged(keeping: Bench) -> None:
    spool = spool_of(keeping)
    spool.goes_on.clear()
    about = {"call-id": "CALL1", "call-creator": LID, "caller_pn": NUMBER}
    offer = {"tag": "offer", "attrs": about, "content": [{"tag": "video", "attrs": {}}]}
    attrs = {"from": LID, "id": "call-1", "t": "1800000000"}
    await put(keeping, {"tag": "call", "attrs": attrs, "content": [offer]})
    await keeping.until(lambda: spool.asked)
    await keeping.engine.probe(deep=True)
    assert keeping.whatsapp.device(ACCOUNT)["unconfirmed"] == 1
    spool.goes_on.set()
    await keeping.until(lambda: not keeping.whatsapp.device(ACCOUNT)["unconfirmed"])
    ended = {"tag": "terminate", "attrs": {**about, "reason": "timeout"}}
    await put(keeping, {"tag": "call", "attrs": {**attrs, "id": "call-2"}, "content": [ended]})
    await keeping.until(lambda: len(spool.of("call")) == 2)
    first, second = spool.of("call")
    assert (first["id"], first["video"], first["chat"]) == ("c:CALL1:offer", True, NUMBER)
    assert (second["id"], second["state"]) == ("c:CALL1:timeout", "timeout")


async def put(bench: Bench, stanza: dict[str, Any]) -> None:
    told = {"user": ACCOUNT, "stanza": stanza}
    await asyncio.to_thread(bench.whatsapp.tell, "/put", told)


async def test_on_a_full_disk_whatsapp_keeps_the_messages_and_hears_of_none(keeping: Bench) -> None:
    spool = spool_of(keeping)
    spool.full = True
    ids = [await say(keeping, f"number {number}") for number in range(3)]
    await keeping.is_now("DISCONNECTED", "storage_failed")
    assert "the disk is full" in keeping.heard.last.raw
    assert "number" not in keeping.heard.last.raw
    for id in ids:
        assert keeping.whatsapp.receipts(ACCOUNT, id) == []
    assert keeping.whatsapp.device(ACCOUNT)["unconfirmed"] == 3
    assert keeping.heard.count("crypto_error") == 0
    # The agent hears once of each login, and nothing is taken, as long as there is no room.
    await keeping.engine.connect()
    await keeping.until(lambda: len(reasons(spool)) == 2)
    assert keeping.whatsapp.device(ACCOUNT)["unconfirmed"] == 3
    spool.full = False
    await keeping.come_back()
    await keeping.until(lambda: not keeping.whatsapp.device(ACCOUNT)["unconfirmed"])
    assert spool.texts() == ["number 0", "number 1", "number 2"]
    assert keeping.whatsapp.person(PEER)["retries"] == 0, "none had to be sent again"
    for id in ids:
        assert keeping.whatsapp.receipts(ACCOUNT, id) == ["inactive"]


def reasons(spool: Spool) -> list[str]:
    return [claim.raw for claim in spool.claims if claim.reason == "storage_failed"]


async def test_a_record_that_can_never_be_kept_ends_no_connection(keeping: Bench) -> None:
    spool = spool_of(keeping)
    spool.bad = "strange"
    begun = len(keeping.heard.claims)
    await keeping.hear("strange")
    await keeping.hear("plain")
    assert spool.texts() == ["plain"]
    assert keeping.heard.claims[begun:] == []
