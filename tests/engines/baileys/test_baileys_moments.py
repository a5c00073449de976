"""Replies, mentions, edits, deletions, reading, typing on the unmodified library, as the phones of
contacts show them."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from tests.engines.baileys.conftest import ACCOUNT, OTHER, PEER, Bench
from tests.engines.baileys.keepers import Spool

pytestmark = pytest.mark.slow
GROUP = "120363000000000007@g.us"


def jid(user: str) -> str:
    return f"{user}@s.whatsapp.net"


@pytest.fixture
async def paired(bench: Bench) -> Bench:
    bench.hearing = Spool
    await bench.come_paired()
    bench.whatsapp.make_group(GROUP, [ACCOUNT, PEER, OTHER])
    return bench


async def send(bench: Bench, to: str = PEER, **message: Any) -> str:
    return str((await bench.engine.send({"to": to, **message}))["id"])


def screen(bench: Bench, user: str = PEER) -> dict[str, Any]:
    return bench.whatsapp.screen(user)


def message(bench: Bench, id: str, user: str = PEER) -> dict[str, Any]:
    return next((each for each in screen(bench, user)["messages"] if each["id"] == id), {})


def record(bench: Bench, kind: str = "message", **fields: Any) -> Mapping[str, Any]:
    assert isinstance(bench.heard, Spool)
    wanted = {"kind": kind, **fields}.items()
    return next((r for r in bench.heard.kept.values() if wanted <= r.items()), {})


async def said(bench: Bench, text: str, **how: Any) -> Mapping[str, Any]:
    """Let a contact write; return the record that is kept of it."""
    if group := how.get("group"):
        id = await asyncio.to_thread(
            bench.whatsapp.say_in_group, how.get("by", PEER), ACCOUNT, group, text
        )
    else:
        id = await asyncio.to_thread(bench.whatsapp.say, PEER, ACCOUNT, text)
    found: Mapping[str, Any] = await bench.until(lambda: record(bench, message_id=id))
    return found


async def test_a_reply_is_shown_as_one_to_who_wrote_it(paired: Bench) -> None:
    asked = await said(paired, "coming?")
    reply = {"text": f"yes @{OTHER}", "quote": asked["message_id"], "mentions": [jid(OTHER)]}
    id = await send(paired, **reply, quote_text="coming?")
    shown = await paired.until(lambda: message(paired, id))
    assert shown["quote"] == {"id": asked["message_id"], "from": PEER, "text": "coming?"}
    assert (shown["text"], shown["mentions"]) == (f"yes @{OTHER}", [OTHER])
    own = await paired.until(lambda: record(paired, message_id=id))
    quoted = {"message_id": asked["message_id"], "sender": jid(PEER), "text": "coming?"}
    assert own["quote"] == quoted
    again = await send(paired, text="and I", quote=id, quote_from="me", quote_text=reply["text"])
    shown = await paired.until(lambda: message(paired, again))
    assert shown["quote"] == {"id": id, "from": ACCOUNT, "text": reply["text"]}


async def test_an_edit_and_a_deletion_change_the_message_once(paired: Bench) -> None:
    id = await send(paired, text="helo")
    edit = {"type": "edit", "message_id": id, "text": "hello", "key": "k1"}
    assert await send(paired, **edit) == await send(paired, **edit)
    await paired.until(lambda: message(paired, id).get("text") == "hello")
    own = await paired.until(lambda: record(paired, "message_edit", message_id=id))
    assert (own["text"], own["from_me"]) == ("hello", True)
    await send(paired, type="delete", message_id=id)
    await paired.until(lambda: message(paired, id).get("deleted") == 1)
    shown = message(paired, id)
    assert (shown["edits"], shown["text"]) == (1, "")
    await paired.until(lambda: record(paired, "message_delete", message_id=id, from_me=True))
    assert screen(paired)["ignored"] == 0
