"""Commands for engines: how long they may take, and alone where a pass would undo them."""

import asyncio
import base64
from contextlib import nullcontext
from unittest.mock import AsyncMock, Mock

import pytest

from agent.core.model import ClaimFact, Instance, InstanceId, JournalEntry, SessionRecord
from agent.core.words import Claim, ConnectionStatus
from agent.engines.web import page_calls
from agent.errors import EngineError, LinkError, NotFound, Refused, TryLater, WaError
from agent.store.database import Store
from agent.supervise import calls as asking
from agent.supervise.calls import PART, Calls
from agent.supervise.facts import Facts
from agent.supervise.registry import Registry

ID = InstanceId("shop")


class Worker:
    """A link that notes what it is asked, and waits for leave to answer."""

    def __init__(self):
        self.asked = []
        self.leave = asyncio.Event()
        self.leave.set()
        self.breaks_with = None
        self.answer = {"done": True}

    async def call(self, do, args=None, *, timeout=10.0):
        self.asked.append((do, args, timeout))
        await self.leave.wait()
        if self.breaks_with is not None:
            raise self.breaks_with
        return self.answer


@pytest.fixture
async def bench(tmp_path):
    store = await Store.open(tmp_path / "agent.db")
    worker, woken = Worker(), []
    registry = Registry(store, Mock(wake=woken.append), tmp_path)
    instance, record = Instance(ID, "evolution", True), SessionRecord()
    await store.add(instance, record, JournalEntry("created", ""))
    facts = registry.facts[ID] = Facts(instance, record, link=worker)
    yield Calls(registry, Mock()), facts, worker, woken
    await store.close()


async def test_after_a_logout_no_older_claim_counts(bench, monkeypatch):
    """A pass that still saw CONNECTED forgot it, and an ordered restart lost the engine's word."""
    asks, facts, _, _ = bench
    monkeypatch.setattr(Registry, "save", AsyncMock())
    asks.keeping.ending = lambda _: nullcontext()
    facts.instance = Instance(ID, "sandbox", True)
    facts.run.claim = ClaimFact(Claim(ConnectionStatus.CONNECTED), 0.0, 0.0)
    await asks.logout(ID)
    assert (facts.run.claim, facts.record.reason) == (None, "logout")
    facts.link, facts.sentence, facts.unit = None, "connected", Mock(runs=True)
    with pytest.raises(Refused, match=r"cannot be reached$"):
        await asks.logout(ID)


async def test_alone_means_that_no_pass_runs_meanwhile_and_one_follows(bench, eventually):
    asks, facts, worker, woken = bench
    worker.leave.clear()
    doing = asyncio.create_task(asks.command(ID, "delete", {}, timeout=150.0, alone=True))
    await eventually(lambda: worker.asked)
    [written] = await asks.registry.store.history(ID, after=1)
    assert written.sentence == "an operator asked its engine for: delete"
    assert (facts.busy.locked(), woken) == (True, [])
    worker.leave.set()
    assert await doing == {"done": True}
    assert not facts.busy.locked()
    assert woken == [ID]
    worker.breaks_with = LinkError("cannot command shop: no answer")
    with pytest.raises(LinkError):
        await asks.command(ID, "delete", {}, alone=True)
    assert not facts.busy.locked()
    assert woken == [ID, ID]


async def test_the_pairing_of_another_account_ends_by_no_order(bench):
    asks, facts, worker, _ = bench
    facts.instance = Instance(ID, "evolution", True, {"backend": "evo"})
    facts.record = SessionRecord(paired=True, account="5511")
    facts.heard(Claim(ConnectionStatus.CONNECTED, paired=True, account="5522"), 0.0)
    with pytest.raises(Refused, match=r"cannot log out shop: .*another account's.*backends adopt"):
        asking.must_be_confirmed(facts, "log out", confirmed=True, passkey=ID)
    with pytest.raises(Refused, match=r"cannot delete the session of shop: .*another account's"):
        await asks.command(ID, "delete", {}, alone=True)
    assert asking.must_be_confirmed(facts, "delete", confirmed=True, passkey=ID), "not there"
    assert worker.asked == []


async def test_an_order_is_not_sent_to_a_worker_that_ended_during_the_wait(bench):
    asks, facts, worker, _ = bench
    async with facts.busy:
        doing = asyncio.create_task(asks.command(ID, "delete", {}, alone=True))
        await asyncio.sleep(0)
        facts.link = None
    with pytest.raises(Refused):
        await doing
    with pytest.raises(NotFound):
        await asks.command(InstanceId("nobody"), "delete", {}, alone=True)
    assert worker.asked == []


async def test_an_engine_that_cannot_tell_gives_no_success(bench):
    asks, _, worker, _ = bench
    worker.answer = {"id": "", "outcome": "unknown", "cause": "no answer in time"}
    with pytest.raises(TryLater, match="no answer in time") as caught:
        await asks.send(ID, {"to": "1", "text": "hi"})
    assert caught.value.code == "unknown_outcome"


def test_no_engine_is_given_up_before_it_says_what_it_knows():
    assert page_calls.ANSWER + 1 + page_calls.FILE_ANSWER + 1 < asking.SEND_TIMEOUT - 1


FILE = {"type": "media", "to": "1", "mimetype": "a/b", "filename": "x"}


async def test_a_long_file_is_handed_over_before_its_message(bench):
    asks, _, worker, _ = bench
    content = "QUJD" * (PART // 3) + "QQ=="
    await asks.send(ID, {**FILE, "content": content})
    (one, two, message) = [(do, args) for do, args, _ in worker.asked]
    parts = [args["arguments"] for _, args in (one, two)]
    assert [part["index"] for part in parts] == [0, 1]
    assert "".join(part["data"] for part in parts) == content
    told = {**FILE, "upload": parts[0]["upload"], "size": len(base64.b64decode(content))}
    assert message == ("send", {"message": told})


TEXT = {"to": "1", "text": "hi"}
LONG = {**FILE, "content": "A" * (PART + 4)}
"""Handed over before it is sent: where that fails, it was surely not sent."""


@pytest.mark.parametrize(
    ("message", "error", "answer"),
    [
        (TEXT, LinkError("it died", code="gone"), (503, "unknown_outcome")),
        (TEXT, EngineError("it is slow", code="timeout"), (503, "unknown_outcome")),
        (TEXT, LinkError("never written", code="oversized"), (413, "too_large")),
        (TEXT, LinkError("too many at once", code="busy"), (503, "busy")),
        (TEXT, EngineError("surely not sent", code="not_sent"), (502, "not_sent")),
        (LONG, LinkError("it died", code="gone"), (503, "not_sent")),
        (LONG, EngineError("another engine", code="invalid_request"), (409, "not_supported")),
        (LONG, EngineError("too long", code="file_too_large"), (502, "file_too_large")),
    ],
)
async def test_a_send_that_fails_says_whether_it_may_have_arrived(bench, message, error, answer):
    asks, _, worker, _ = bench
    worker.breaks_with = error
    with pytest.raises(WaError) as caught:
        await asks.send(ID, message)
    assert (caught.value.http, caught.value.code) == answer
    assert [do for do, _, _ in worker.asked] == ["send" if message is TEXT else "command"]
