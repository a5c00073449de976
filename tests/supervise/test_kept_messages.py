"""What arrived in a session, read from its worker: pages, waits, restarts, and what all have."""

import asyncio
from dataclasses import replace

import pytest

from agent.core.model import Happening, Instance, InstanceId, SessionRecord
from agent.errors import EngineError, LinkError, Refused, TryLater
from agent.store.database import Store
from agent.supervise.facts import Facts
from agent.supervise.messages.highest_cursors import HighestCursors
from agent.supervise.messages.kept_messages import READER, KeptMessages
from agent.supervise.registry import Registry
from tests.fakes.messages import FakeWorker

ID, REMOTE = InstanceId("shop"), InstanceId("far")


class Bench:
    def __init__(self, registry, store):
        self.registry, self.store = registry, store
        self.highest = HighestCursors(store, registry)
        self.messages = KeptMessages(registry, self.highest)
        self.worker = FakeWorker()
        record = SessionRecord()
        self.facts = Facts(Instance(ID, "sandbox", True), record, link=self.worker)
        far = Instance(REMOTE, "whaticket", True, {"backend": "eu"})
        registry.facts.update({ID: self.facts, REMOTE: Facts(far, record)})

    async def texts(self, after, **more):
        page = await self.messages.page(ID, after, **more)
        return [one.get("text", one["kind"]) for one in page.records]

    def told(self, **detail):
        """Its worker tells that it kept more."""
        detail = {"cursor": self.worker.newest, **detail}
        return self.messages.take(ID, Happening("kept", detail))

    def asks(self):
        return sum(do == "messages" for do, _ in self.worker.asked)


@pytest.fixture
async def bench(tmp_path):
    store = await Store.open(tmp_path / "agent.db")
    yield Bench(Registry(store, None, tmp_path), store)
    await store.close()


async def test_behind_the_newest_is_what_comes_from_now_on(bench, eventually):
    bench.worker.keep("a", "b")
    page = await bench.messages.page(ID, None)
    assert (page.records, page.next) == ((), 2)
    waiting = asyncio.create_task(bench.texts(None, wait=30))
    await eventually(lambda: bench.asks() >= 2)
    bench.worker.keep("c")
    assert bench.told()
    assert await waiting == ["c"]


async def test_who_waits_gets_the_first_one_at_once_and_its_worker_is_not_asked_meanwhile(
    bench, eventually
):
    waiting = asyncio.create_task(bench.texts(0, wait=30))
    await eventually(lambda: bench.asks() == 1 and not bench.worker.at_once)
    bench.worker.keep("a")
    bench.told()
    assert await waiting == ["a"]
    assert bench.asks() == 2
    assert await bench.texts(1, wait=0.01) == []


async def test_what_is_kept_during_the_look_is_not_missed(bench, eventually):
    bench.worker.leave.clear()
    waiting = asyncio.create_task(bench.texts(0, wait=30))
    await eventually(lambda: bench.worker.at_once)
    bench.worker.keep("a")  # its answer is made already
    bench.told()
    bench.worker.leave.set()
    assert await waiting == ["a"]
    assert bench.asks() == 2


@pytest.mark.parametrize(
    ("failure", "error", "code"),
    [
        (LinkError("cannot messages shop: no answer in 5 s", code="timeout"), TryLater, "slow"),
        (
            EngineError("no such call", code="invalid_request", field="do"),
            Refused,
            "not_kept",
        ),
        (EngineError("cannot read the disk", code="io"), EngineError, "io"),
    ],
)
async def test_a_worker_that_does_not_answer_is_named(bench, failure, error, code):
    bench.worker.breaks_with = failure
    with pytest.raises(error) as said:
        await bench.messages.page(ID, 0)
    assert said.value.code == code


@pytest.mark.parametrize("records", [None, [{}, None]])
async def test_an_answer_of_another_form_is_refused(bench, records):
    async def call(do, args=None, *, timeout=10.0):
        return {"records": records, "newest": 1}

    bench.worker.call = call
    with pytest.raises(TryLater):
        await bench.messages.page(ID, 0)


async def test_a_worker_hears_what_all_have_that_get_its_messages(bench):
    bench.worker.keep(*"abcdefgh")
    messages = bench.messages
    await messages.page(ID, 0)
    await messages.settled(READER, ID, 3)
    await messages.settled(READER, ID, 2)  # another one, behind the first
    assert bench.worker.settled() == [3]
    messages.attached(ID)
    for name in ("ops", "crm"):
        messages.consume(name, lambda id: id == ID)
    messages.consume("others", lambda id: id != ID)
    await messages.settled("ops", ID, 5)  # of `crm` nobody knows yet
    assert bench.worker.settled() == [3]
    await messages.settled("crm", ID, 2)
    await messages.settled("crm", ID, 2)
    assert bench.worker.settled() == [3, 2]
    await messages.settled("crm", ID, 7)
    assert bench.worker.settled() == [3, 2, 5]
    messages.forget_consumer("ops")
    await messages.settled("crm", ID, 8)
    assert bench.worker.settled() == [3, 2, 5, 8]


async def test_where_nobody_gets_its_messages_all_is_settled(bench):
    bench.worker.keep("a", "b")
    await bench.messages.ask_state(ID)
    await bench.messages.tell_settled(ID)
    assert bench.worker.settled() == [2]
    bench.worker.keep("c")
    bench.messages.consume("ops", lambda id: True)
    bench.told()
    await bench.messages.tell_settled(ID)
    assert bench.worker.settled() == [2]


async def test_what_was_settled_is_told_to_the_next_worker_too(bench):
    bench.messages.consume("ops", lambda id: True)
    bench.worker.breaks_with = LinkError("gone", code="gone")
    await bench.messages.settled("ops", ID, 3)
    bench.worker.breaks_with = None
    await bench.messages.settled("ops", ID, 3)
    assert bench.worker.settled() == [3, 3]
    bench.messages.attached(ID)
    await bench.messages.settled("ops", ID, 3)
    assert bench.worker.settled() == [3, 3, 3]


async def test_a_follower_hears_of_each_session_once_however_much_it_kept(bench):
    changes = bench.messages.follow()
    for _ in range(1000):
        bench.told()
    bench.messages.attached(REMOTE)
    assert await changes.next() == {ID, REMOTE}
    assert not bench.messages.take(ID, Happening("message", {}))
    changes.close()
    bench.told()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await changes.next()


async def test_a_worker_hears_before_it_is_asked_how_far_its_session_was_known(bench):
    bench.worker.keep("a", "b", "c")
    bench.told()
    await bench.texts(0)
    assert ("messages_above", {"cursor": 3}) in bench.worker.asked
    await bench.messages.save_highest()
    again = Bench(bench.registry, bench.store)
    await again.highest.take_over()
    again.messages.attached(ID)
    await again.texts(0)
    assert again.worker.asked[:1] == [("messages_above", {"cursor": 3})]
    await again.texts(0)
    assert len(again.worker.asked) == 3, "it is told once"


async def test_an_instance_that_was_made_again_is_not_told_of_the_one_before(bench):
    bench.worker.keep("a")
    bench.told()
    await bench.messages.save_highest()
    instance = replace(bench.facts.instance, created_wall=5.0)
    bench.registry.facts[ID] = Facts(instance, SessionRecord(), link=bench.worker)
    other = HighestCursors(bench.store, bench.registry)
    await other.take_over()
    assert other.of(ID) == 0
    assert await bench.store.get_facts("messages_highest.") == {}
