"""What arrives is kept before the server hears that its webhook was taken, and what no webhook
brought is found in the server's store."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from agent.core.model import InstanceId
from agent.engines.evolution.chat.comparing import LATE
from agent.errors import EngineError
from tests.conftest import Eventually
from tests.engines.evolution.conftest import PACE, Bench, Heard, MakeBench, MakeStandIn

QUICK = replace(PACE, compare_again=0.0, compare_unhooked=0.0, compare_settled=0.0)
BOTH = pytest.mark.parametrize("version", ["1.8.6", "2.3.6"])


@dataclass
class Keeping(Heard):
    """A reporter that keeps, each id once, as a spool does."""

    kept: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    refuses: int = 0

    @property
    def keeps(self) -> bool:
        return True

    async def keep(self, records: Sequence[Mapping[str, Any]]) -> None:
        if self.refuses:
            self.refuses -= 1
            raise EngineError("cannot keep messages: no space", code="not_kept")
        for record in records:
            self.kept.setdefault(record["id"], record)

    def texts(self) -> list[str]:
        return [one["text"] for one in self.kept.values() if one["kind"] == "message"]


async def hold(bench: Bench, *, since: float = 0.0) -> Keeping:
    """`since`: seconds ago until which it was compared, as the worker before this one noted."""
    heard = Keeping()
    if since:
        bench.backend._server.comparing.marks.put("sales", time.time() - since)
    bench.backend.hold(InstanceId("sales"), {"remote": "", "adopted": False}, heard)
    await bench.backend.check()
    return heard


def message(text: str) -> dict[str, Any]:
    return {"conversation": text}


@BOTH
async def test_what_cannot_be_kept_is_not_taken(
    make_stand_in: MakeStandIn, make_bench: MakeBench, version: str
) -> None:
    """The agent answers the webhook with an error then, and the server tells it again."""
    standin = await make_stand_in(version)
    standin.add("sales", "open")
    bench = await make_bench(standin)
    heard = await hold(bench)
    heard.refuses = 1
    standin.arrive("sales", message("one"), told=False)
    body = {"event": "messages.upsert", "instance": "sales"}
    body["data"] = standin.instances["sales"].stored[0]
    with pytest.raises(EngineError) as refused:
        await bench.backend.hook(body)
    assert refused.value.code == "not_kept"
    assert heard.happenings == []
    await bench.backend.hook(body)
    await bench.backend.hook(body)
    assert heard.texts() == ["one"]
    assert len(heard.happenings) == 1


@BOTH
async def test_what_no_webhook_brought_is_found_in_the_store(
    make_stand_in: MakeStandIn, make_bench: MakeBench, eventually: Eventually, version: str
) -> None:
    standin = await make_stand_in(version)
    standin.add("sales", "open")
    bench = await make_bench(standin, pace=QUICK)
    old = standin.arrive("sales", message("long ago"), told=False, at=time.time() - LATE - 900)
    missed = [
        standin.arrive("sales", message(f"n{number}"), told=False, at=time.time() - 300 + number)
        for number in range(120)
    ]
    heard = await hold(bench, since=600)
    session = bench.backend._by_name["sales"]

    async def compared() -> int:
        await session.probe()
        return len(heard.kept)

    await eventually(compared, 120)
    assert heard.texts() == [f"n{number}" for number in range(120)]  # the oldest first
    assert not any(old in id for id in heard.kept)
    assert all(any(id in found for found in heard.kept) for id in missed)
    assert {one["fresh"] for one in heard.kept.values()} == {False}


async def test_a_new_session_begins_with_what_comes(
    make_stand_in: MakeStandIn, make_bench: MakeBench, eventually: Eventually
) -> None:
    """What it had before is its server's, and of another program's time."""
    standin = await make_stand_in("2.3.6")
    standin.add("sales", "open")
    bench = await make_bench(standin, pace=QUICK)
    standin.arrive("sales", message("before"), told=False, at=time.time() - LATE - 60)
    heard = await hold(bench)
    session, marks = bench.backend._by_name["sales"], bench.backend._server.comparing.marks
    await session.probe()
    await eventually(lambda: marks.get("sales") is not None)
    standin.arrive("sales", message("after"), told=False)

    async def texts() -> list[str]:
        await session.probe()
        return heard.texts()

    await eventually(texts, ["after"])


async def test_what_was_given_after_a_pause_is_found_by_its_own_time(
    make_stand_in: MakeStandIn, make_bench: MakeBench, eventually: Eventually
) -> None:
    """WhatsApp holds messages of a session that is away, and gives them with the time at which
    they were written: a comparison during the pause does not count as one."""
    standin = await make_stand_in("2.3.6")
    instance = standin.add("sales", "open")
    bench = await make_bench(standin, pace=QUICK)
    heard = await hold(bench, since=7200)
    session, marks = bench.backend._by_name["sales"], bench.backend._server.comparing.marks
    begun = marks.get("sales")
    instance.state = "connecting"
    instance.stuck = True
    asked = standin.asked

    async def looks(more: int) -> bool:
        await session.probe()
        return asked["POST /chat/findMessages"] >= more

    await eventually(lambda: looks(2))
    assert marks.get("sales") == begun
    instance.stuck, instance.state = False, "open"
    standin.arrive("sales", message("held"), told=False, at=time.time() - 5400)

    async def texts() -> list[str]:
        await session.probe()
        return heard.texts()

    await eventually(texts, ["held"])

    async def moved() -> bool:
        await session.probe()
        return marks.get("sales") != begun

    await eventually(moved)


async def test_what_became_of_a_sent_message_is_found_as_well(
    make_stand_in: MakeStandIn, make_bench: MakeBench, eventually: Eventually
) -> None:
    standin = await make_stand_in("2.3.6")
    instance = standin.add("sales", "open")
    bench = await make_bench(standin, pace=QUICK)
    heard = await hold(bench, since=600)
    session = bench.backend._by_name["sales"]
    sent = await session.send({"to": "5511888880001", "type": "text", "text": "out"})
    standin.instances["sales"].stored[0]["MessageUpdate"] = [{"status": "READ"}]

    async def states() -> set[Any]:
        await session.probe()
        return {one.get("state") for one in heard.kept.values() if one["kind"] == "message_ack"}

    await eventually(states, {"read"})
    assert instance.stored[0]["key"]["id"] == sent["id"]
    acks = [one.detail for one in heard.happenings if one.kind == "ack"]
    assert acks == [{"id": sent["id"], "ack": "read"}]


async def test_the_agents_return_and_the_servers_begin_a_comparison(
    make_stand_in: MakeStandIn, make_bench: MakeBench, eventually: Eventually
) -> None:
    standin = await make_stand_in("2.3.6")
    standin.add("sales", "open")
    slow = replace(QUICK, compare_again=600.0, compare_unhooked=600.0)
    bench = await make_bench(standin, pace=slow)
    await hold(bench, since=600)
    session, asked = bench.backend._by_name["sales"], standin.asked

    async def compared() -> int:
        await session.probe()
        return asked["POST /chat/findMessages"]

    await eventually(compared, 1)
    await session.probe()
    assert asked["POST /chat/findMessages"] == 1
    session.catch_up()
    await eventually(compared, 2)
    session.server_is_away()
    await eventually(compared, 3)


async def test_a_store_that_cannot_be_read_is_asked_again(
    make_stand_in: MakeStandIn, make_bench: MakeBench, eventually: Eventually
) -> None:
    standin = await make_stand_in("2.3.6")
    standin.add("sales", "open")
    standin.without = "/chat/findMessages"
    bench = await make_bench(standin, pace=QUICK)
    heard = await hold(bench, since=600)
    standin.arrive("sales", message("one"), told=False)
    session = bench.backend._by_name["sales"]
    await eventually(lambda: _looked(session, standin.asked))
    assert heard.kept == {}
    standin.without = ""

    async def texts() -> list[str]:
        await session.probe()
        return heard.texts()

    await eventually(texts, ["one"])


async def _looked(session: Any, asked: Mapping[str, int]) -> bool:
    await session.probe()
    return asked["POST /chat/findMessages"] > 0


async def test_an_edit_is_told_with_the_chat_that_the_server_leaves_out(
    make_stand_in: MakeStandIn, make_bench: MakeBench
) -> None:
    standin = await make_stand_in("2.3.6")
    standin.add("sales", "open")
    bench = await make_bench(standin)
    heard = await hold(bench)
    id = standin.arrive("sales", message("one"), told=False)
    row = standin.instances["sales"].stored[0]
    told = {"instance": "sales", "event": "messages.upsert", "data": row}
    await bench.backend.hook(told)
    key = {"remoteJid": "5511900000000@s.whatsapp.net", "fromMe": True, "id": id}
    edit = {"key": key, "type": "MESSAGE_EDIT", "editedMessage": message("two")}
    await bench.backend.hook({"instance": "sales", "event": "messages.edited", "data": edit})
    first, second = heard.kept.values()
    assert (second["kind"], second["text"], second["message_id"]) == ("message_edit", "two", id)
    for name in ("chat", "sender", "from_me", "alias"):
        assert second[name] == first[name]
