"""Contacts write to the sandbox's account and get messages: none is lost, none comes twice."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.engines.sandbox.engine import SandboxEngine, open_engine
from agent.engines.sandbox.server import ABOUT_MESSAGE, KINDS, TYPES, record_of
from agent.errors import EngineError, InvalidRequest
from agent.messages.record import clean
from tests.engines.heard import Heard

ANN = "5511999990000@s.whatsapp.net"
SETTINGS = {"scan_after": 0.005, "login_seconds": 0.002, "sync_seconds": 0.004}
SETTINGS |= {"messages_per_minute": 0, "read_after": 0.01}


class Keeping(Heard):
    """A Reporter that keeps; a `killed` one answers no more."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Mapping[str, Any]] = []
        self.killed = False

    @property
    def keeps(self) -> bool:
        return True

    async def keep(self, records: Sequence[Mapping[str, Any]]) -> None:
        self.kept += records
        if self.killed:
            await asyncio.Event().wait()

    def texts(self) -> list[str]:
        return [r["text"] for r in self.kept if r["kind"] == "message" and not r["from_me"]]

    def states(self) -> list[str]:
        return [r["state"] for r in self.kept if r["kind"] == "message_ack"]


@pytest.fixture
async def start(tmp_path: Path, eventually: Any) -> AsyncIterator[Callable[..., Any]]:
    """Another worker of the same session; what a worker kept in memory ends with it."""
    session = tmp_path / "sales" / "session"
    session.mkdir(parents=True)
    engines: list[SandboxEngine] = []

    async def begin(heard: Heard, *, connected: bool = True) -> SandboxEngine:
        while engines:
            await engines.pop().close()
        engines.append(open_engine(session, SETTINGS, heard))
        if connected:
            await engines[0].connect()
            await eventually(lambda: heard.claims and heard.claims[-1].status == "CONNECTED")
        return engines[0]

    yield begin
    while engines:
        await engines.pop().close()


async def test_a_pairing_that_is_being_written_does_not_ask_for_a_code(start: Any) -> None:
    """Or a check in between takes the new session for a lost one."""
    heard = Heard()
    engine = await start(heard, connected=False)
    await engine.connect()
    claim = (await engine.probe()).claim
    async with asyncio.timeout(60):
        while not claim.paired:
            await asyncio.sleep(0)
            claim = (await engine.probe()).claim
    assert "QR_REQUIRED" not in [one.status for one in (claim, *heard.claims) if one.paired]


async def say(engine: SandboxEngine, text: str, **more: Any) -> Mapping[str, Any]:
    return await engine.command("say", {"contact": "+55 11 99999-0000", "text": text, **more})


async def test_a_message_waits_for_the_session_and_a_kill_between_taking_and_keeping_gives_it_again(
    start: Any, eventually: Any
) -> None:
    first = Keeping()
    away = await start(first, connected=False)
    said = await say(away, "one")
    await say(away, "two")
    assert first.kept == [], "no connection, nothing comes"
    second = Keeping()
    second.killed = True
    await start(second)
    await eventually(lambda: second.texts() == ["one", "two"])
    third = Keeping()
    await start(third)
    await eventually(lambda: third.texts() == ["one", "two"])
    assert [r["id"] for r in third.kept] == [r["id"] for r in second.kept], "the same, by their ids"
    assert third.kept[0]["message_id"] == said["id"]
    told = {"direction": "in", "type": "text"}
    await eventually(lambda: told in [each.detail for each in third.happenings])
    fourth = Keeping()
    engine = await start(fourth)
    await say(engine, "three")
    await eventually(lambda: fourth.texts() == ["three"])
    await engine.close()
    with pytest.raises(EngineError, match=r"messages in /.*/whatsapp\.db: "):
        await say(engine, "four")


async def test_a_contact_gets_a_message_of_one_key_once_and_its_acks_come_also_after_a_kill(
    start: Any, eventually: Any
) -> None:
    message = {"to": "5511999990000", "type": "text", "text": "hello", "key": "ab" * 32}
    heard = Keeping()
    engine = await start(heard)
    sent = await engine.send(message)
    await eventually(lambda: heard.states() == ["server", "delivered", "read"])
    own = next(r for r in heard.kept if r["kind"] == "message")
    assert (own["from_me"], own["text"], own["chat"]) == (True, "hello", ANN)
    again = Keeping()
    engine = await start(again)
    assert await engine.send(message) == sent
    await engine.send({**message, "key": "cd" * 32, "text": "another"})
    got = await engine.command("heard", {})
    assert [m["text"] for m in got["messages"]] == ["hello", "another"]
    assert got["messages"][0]["id"] == sent["id"]
    assert (await engine.command("heard", {"after": 1}))["messages"] == got["messages"][1:]
    await eventually(lambda: again.states().count("read") == 2)
    acks = {r["id"] for r in heard.kept if r["kind"] == "message_ack"}
    assert acks <= {r["id"] for r in again.kept}, "acknowledged again, by the same ids"


async def test_each_kind_arrives_as_a_record_that_can_be_kept(start: Any, eventually: Any) -> None:
    heard = Keeping()
    engine = await start(heard)
    for kind in (*KINDS, *KINDS):
        text, fields = "read" if kind == "message_ack" else "x", {"at": 5}
        await say(engine, text, kind=kind, of="3EB0AA", fields=fields)
    await eventually(lambda: len(heard.kept) == 2 * len(KINDS))
    assert [clean(each) for each in heard.kept] == heard.kept
    assert [each["kind"] for each in heard.kept] == [*KINDS, *KINDS]
    ids = {each["id"] for each in heard.kept}
    assert len(ids) == len(KINDS) + len(ABOUT_MESSAGE), "each of these has an id of its own"


def test_each_type_of_message_has_what_belongs_to_it() -> None:
    for type in TYPES:
        record = record_of({"contact": ANN, "text": "x", "type": type, "group": "123-4@g.us"})
        assert clean(record) == record
        assert (record["type"], record["chat"], record["sender"]) == (type, "123-4@g.us", ANN)


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"contact": "nobody"}, "contact"),
        ({"contact": ANN, "group": "a b@g.us"}, "group"),
        ({"contact": ANN, "kind": "message_edit"}, "of"),
        ({"contact": ANN, "fields": {"cursor": 7}}, "fields"),
        ({"contact": ANN, "fields": {"media": None}, "content": "aGk="}, "fields.media"),
        ({"contact": ANN, "fields": {"media": {"size": "x"}}}, "fields.media.size"),
    ],
)
async def test_what_cannot_be_said_is_refused_by_its_field(
    said: dict[str, Any], field: str, start: Any
) -> None:
    engine = await start(Keeping(), connected=False)
    with pytest.raises(InvalidRequest) as refused:
        await engine.command("say", said)
    assert refused.value.field == field
