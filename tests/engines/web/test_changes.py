"""Replies, mentions, edits, deletions, reading and typing through the real worker and the
unmodified bundle, as the phones of contacts show them."""

from collections.abc import Mapping
from typing import Any

import pytest

from agent.errors import EngineError
from tests.engines.web.bench import Bench
from tests.engines.web.kept import KEEP, kept
from tests.refused import refused
from tests.standin.web.stand_in import StandIn

TO = "5511888888888"
CHAT, JID = f"{TO}@c.us", f"{TO}@s.whatsapp.net"
BOB = "5511666666666"


async def send(bench: Bench, **message: Any) -> str:
    told = await bench.link.call("send", {"message": {"to": TO, **message}}, timeout=20)
    assert told["outcome"] == "sent"
    return str(told["id"])


async def tell(bench: Bench, do: str, **asked: Any) -> None:
    await bench.link.call(do, {"asked": asked}, timeout=20)


async def until_kept(bench: Bench, kind: str, message_id: str) -> Mapping[str, Any]:
    await bench.until(lambda: record(bench, kind, message_id))
    return record(bench, kind, message_id)


def record(bench: Bench, kind: str, message_id: str) -> Mapping[str, Any]:
    wanted = {"kind": kind, "message_id": message_id}.items()
    return next((each for each in kept(bench.folder) if wanted <= each.items()), {})


async def test_a_reply_and_a_mention_are_shown_and_read_as_such(
    bench: Bench, stand_in: StandIn
) -> None:
    await bench.pair(stand_in, first=KEEP)
    stand_in.deliver("message", **{"from": CHAT, "id": "ASK1", "body": "coming?"})
    await bench.until(lambda: record(bench, "message", "ASK1"))
    reply = {"text": f"yes @{BOB}", "quote": "ASK1", "quote_from": JID}
    id = await send(bench, **reply, mentions=[f"{BOB}@s.whatsapp.net"])
    shown = stand_in.arrived[id]
    assert shown["quote"] == {"id": "ASK1", "by": CHAT, "body": "coming?"}
    assert shown["mentions"] == [f"{BOB}@c.us"]
    found = await until_kept(bench, "message", id)
    assert found["quote"] == {"message_id": "ASK1", "sender": JID, "text": "coming?"}
    assert found["mentions"] == [f"{BOB}@s.whatsapp.net"]
    own = await send(bench, text="and I", quote=id, quote_from="me")
    assert stand_in.arrived[own]["quote"]["body"] == reply["text"]
    with refused(EngineError, "message_not_found"):
        await send(bench, text="x", quote="NEVERSENT")
    # The other way: what a contact replies.
    more = {"quotedStanzaID": id, "quotedParticipant": "5511999999999@c.us"}
    told = {"from": CHAT, "id": "ANS1", "body": "good", "fields": more}
    stand_in.deliver("message", **told)
    assert (await until_kept(bench, "message", "ANS1"))["quote"]["message_id"] == id


async def test_an_edit_and_a_deletion_change_the_message_once(
    bench: Bench, stand_in: StandIn
) -> None:
    await bench.pair(stand_in, first=KEEP)
    id = await send(bench, text="helo")
    edit = {"type": "edit", "message_id": id, "text": "hello", "key": "k1"}
    assert await send(bench, **edit) == await send(bench, **edit)
    assert (stand_in.arrived[id]["body"], stand_in.arrived[id]["edits"]) == ("hello", 1)
    edits = [each for each in stand_in.page().received if each.get("type") == "edit"]
    assert len(edits) == 1, "the page knows the edit that it has made"
    edited = await until_kept(bench, "message_edit", id)
    assert (edited["text"], edited["from_me"]) == ("hello", True)
    for _ in "12":
        await send(bench, type="delete", message_id=id, sender="me", key="k2")
    assert (stand_in.arrived[id]["body"], stand_in.arrived[id]["deletions"]) == ("", 1)
    await bench.until(lambda: record(bench, "message_delete", id))
    stand_in.deliver("message", **{"from": CHAT, "id": "THEIRS", "body": "mine"})
    await bench.until(lambda: record(bench, "message", "THEIRS"))
    for wrong, code in (
        ({"type": "delete", "message_id": "THEIRS", "sender": JID}, "refused"),
        ({"type": "edit", "message_id": "THEIRS", "text": "x"}, "message_not_found"),
        ({"type": "edit", "message_id": id, "text": "x"}, "refused"),
    ):
        with refused(EngineError, code):
            await send(bench, **wrong)


async def test_reading_and_typing_are_shown_to_the_chat(bench: Bench, stand_in: StandIn) -> None:
    await bench.pair(stand_in, first=KEEP)
    for id in ("A1", "A2"):
        stand_in.deliver("message", **{"from": CHAT, "id": id, "body": "hi"})
        await bench.until(lambda id=id: record(bench, "message", id))

    def told(do: str) -> list[Mapping[str, Any]]:
        return [each for each in stand_in.page().received if each["do"] == do]

    await tell(bench, "mark_read", chat=JID, message_ids=["A1"], sender="")
    await bench.until(lambda: told("seen"))
    assert told("seen") == [{"do": "seen", "chat": CHAT, "ids": ["A1", "A2"]}]
    for state, seconds in (("typing", 60), ("recording", 0.2)):
        await tell(bench, "presence", chat=JID, state=state, seconds=seconds)
    await tell(bench, "presence", chat="", state="unavailable", seconds=0)
    states = ["composing", "recording", "unavailable", "paused"]
    await bench.until(lambda: len(told("presence")) >= len(states))
    assert sorted(each["state"] for each in told("presence")) == sorted(states)
    assert [each["chat"] for each in told("presence") if each["state"] == "paused"] == [CHAT]
    with pytest.raises(EngineError):
        await tell(bench, "mark_read", chat="nobody", message_ids=[], sender="")
