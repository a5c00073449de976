"""Replies, mentions, edits, deletions, reading and typing on the sandbox, as contacts see them."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agent.engines.sandbox.engine import SandboxEngine
from agent.errors import EngineError
from tests.engines.sandbox.test_conversation import ANN, Keeping, start

__all__ = ["start"]
BOB = "5511888880000@s.whatsapp.net"
GROUP = "120363041234567890@g.us"


@pytest.fixture
async def engine(start: Callable[..., Any]) -> SandboxEngine:
    engine: SandboxEngine = await start(Keeping())
    return engine


async def heard(engine: SandboxEngine) -> list[dict[str, Any]]:
    return list((await engine.command("heard", {}))["messages"])


async def test_a_reply_names_what_it_answers_and_whom(
    start: Callable[..., Any], eventually: Any
) -> None:
    keeping = Keeping()
    engine = await start(keeping)
    reply = {"to": ANN, "type": "text", "text": "@5511888880000 yes", "mentions": [BOB]}
    await engine.send({**reply, "quote": "M1", "quote_from": ANN, "quote_text": "coming?"})
    (shown,) = await heard(engine)
    assert (shown["quote"], shown["quote_from"], shown["mentions"]) == ("M1", ANN, [BOB])
    await eventually(lambda: [r for r in keeping.kept if r["kind"] == "message"])
    own = next(r for r in keeping.kept if r["kind"] == "message")
    assert own["quote"] == {"message_id": "M1", "sender": ANN, "text": "coming?"}
    assert own["mentions"] == [BOB]


async def test_an_edit_and_a_deletion_come_once_and_change_only_what_was_sent(
    start: Callable[..., Any], eventually: Any
) -> None:
    keeping = Keeping()
    engine = await start(keeping)
    id = (await engine.send({"to": ANN, "text": "helo"}))["id"]
    edit = {"to": ANN, "type": "edit", "message_id": id, "text": "hello", "key": "k1"}
    again = [await engine.send(edit), await engine.send(edit)]
    assert again[0] == again[1]
    await engine.send({"to": ANN, "type": "delete", "message_id": id, "sender": "me"})
    assert [(m["type"], m.get("text", "")) for m in await heard(engine)] == [
        *(("text", "helo"), ("edit", "hello"), ("delete", "")),
    ]
    changes = ("message_edit", "message_delete")

    def told() -> list[tuple[str, str]]:
        return [(r["kind"], r["message_id"]) for r in keeping.kept if r["kind"] in changes]

    await eventually(lambda: told() == [("message_edit", id), ("message_delete", id)])
    foreign = {"to": BOB, "message_id": id, "text": "x"}
    for message in (
        {**foreign, "type": "edit"},
        {**foreign, "type": "delete"},
        {**foreign, "to": ANN, "type": "delete", "sender": ANN},
    ):
        with pytest.raises(EngineError) as refused:
            await engine.send(message)
        assert refused.value.code == "message_not_found"
    of_an_admin = {"to": GROUP, "type": "delete", "message_id": "M9", "sender": ANN}
    await engine.send(of_an_admin)


async def test_reading_and_typing_reach_the_contact_and_end_by_themselves(
    engine: SandboxEngine, eventually: Any
) -> None:
    await engine.mark_read({"chat": ANN, "message_ids": ["M1", "M2"], "sender": ""})
    await engine.presence({"chat": ANN, "state": "typing", "seconds": 0.05})
    await engine.presence({"chat": BOB, "state": "recording", "seconds": 60})
    await engine.presence({"chat": BOB, "state": "typing", "seconds": 0})
    await engine.presence({"chat": "", "state": "available", "seconds": 0})

    async def seen() -> list[tuple[str, str]]:
        return [(m["type"], m["chat"]) for m in await heard(engine)]

    first = [("read", ANN), ("typing", ANN), ("recording", BOB), ("typing", BOB), ("available", "")]
    await eventually(seen, [*first, ("paused", ANN)])
    assert (await heard(engine))[0]["message_ids"] == ["M1", "M2"]
    await engine.disconnect()
    for refused in (engine.mark_read({"chat": ANN}), engine.presence({"state": "typing"})):
        with pytest.raises(EngineError) as error:
            await asyncio.wait_for(refused, 5)
        assert error.value.code == "not_connected"
