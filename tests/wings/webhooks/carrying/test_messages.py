"""Webhooks that get what arrives in sessions: every record, in order, whatever happens."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.deliver.bus import EventBus
from agent.store.database import Store
from agent.wings.webhooks.all import Webhooks
from agent.wings.webhooks.courier import RECORDS, SESSIONS
from agent.wings.webhooks.settings import WebhookDeclaration
from tests.conftest import Eventually
from tests.fakes.messages import FakeMessages
from tests.wings.webhooks.receiver import Receiver

SECRET_TEXT = "for nobody's log"


@dataclass
class Bench:
    """A store, sessions in memory, and webhooks that can be ended and begun again."""

    store: Store
    messages: FakeMessages
    eventually: Eventually
    running: list[asyncio.Task[None]] = field(default_factory=list)

    def begin(self, *declared: WebhookDeclaration) -> Webhooks:
        one = Webhooks(
            declared,
            self.store,
            EventBus(),
            self.messages.reader,
            sender=("m1", "9.9"),
            views=lambda: self.messages.sessions,
        )
        self.running.append(asyncio.create_task(one.run()))
        return one

    async def begun(self, *declared: WebhookDeclaration) -> Webhooks:
        """As `begin`; each has its cursor in each session."""
        one = self.begin(*declared)
        await self.eventually(lambda: all(self.cursors(one, hook.name) for hook in declared))
        return one

    def cursors(self, one: Webhooks, name: str) -> bool:
        known = one._couriers[name]._cursors if name in one._couriers else {}
        return len(known) >= len(self.messages.workers)

    async def end(self) -> None:
        for task in self.running:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self.running.clear()

    async def kinds(self) -> list[str]:
        return [one.kind for one in reversed(await self.store.history(limit=1000))]


@pytest.fixture
async def bench(tmp_path: Path, eventually: Eventually) -> AsyncIterator[Bench]:
    store = await Store.open(tmp_path / "agent.db")
    one = Bench(store, FakeMessages(), eventually)
    reading = asyncio.create_task(one.messages.reader.run())
    yield one
    await one.end()
    reading.cancel()
    await store.close()


@pytest.fixture
async def target() -> AsyncIterator[Receiver]:
    async with Receiver().open() as one:
        yield one


def hook(target: Receiver, name: str = "crm", **more: Any) -> WebhookDeclaration:
    told = {"url": target.url, "private": True, "timeout": 30.0, "kinds": ("message*",), **more}
    return WebhookDeclaration(name, **told)


def texts(target: Receiver, session: str = "") -> list[str]:
    return [
        one.body.get("text", one.body["kind"])
        for one in target.taken
        if "cursor" in one.body and one.body["instance"] == (session or one.body["instance"])
    ]


async def test_each_record_arrives_as_the_api_shows_it_with_its_session(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    worker = bench.messages.add("shop", first=1_800_000_000_000)
    await bench.begun(hook(target))
    many = [str(number) for number in range(RECORDS * 2 + 7)]
    bench.messages.keep("shop", *many)
    await eventually(lambda: texts(target), many)
    found = target.taken[-1]
    record = worker.records[-1]
    its = {"answerable": True, "instance": "shop", "machine": "m1", "agent": "9.9"}
    assert found.body == {**record, **its}
    assert found.headers["X-WA-Event"] == "message"
    kept_ms = round(record["kept"] * 1000)
    assert found.headers["X-WA-Delivery"] == f"shop-{record['cursor']}-{kept_ms}"
    await eventually(lambda: worker.settled()[-1:] == [worker.newest])


@pytest.mark.parametrize("kinds", [("*",), ("m*",)])
async def test_messages_go_only_to_who_names_them(
    bench: Bench, target: Receiver, eventually: Eventually, kinds: tuple[str, ...]
) -> None:
    worker = bench.messages.add("shop")
    webhooks = bench.begin(hook(target, kinds=kinds))
    await eventually(lambda: [view.messages for view in webhooks.views()], [None])
    bench.messages.keep("shop", "a")
    assert not [do for do, _ in worker.asked]


async def test_kinds_and_sessions_are_chosen_and_a_gap_always_comes(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    for name in ("shop-1", "shop-2", "other"):
        bench.messages.add(name)
    chosen = hook(target, kinds=("message", "call"), instances=("shop-*",), oldest=True)
    worker = bench.messages.workers["shop-1"]
    worker.keep("a")
    bench.begin(chosen)
    await eventually(lambda: texts(target), ["a"])
    worker.keep("seen", kind="message_ack")
    worker.keep("ring", kind="call")
    bench.messages.keep("other", "not for it")
    bench.messages.keep("shop-2", "two")
    bench.messages.keep("shop-1", "b")
    await eventually(lambda: texts(target, "shop-1"), ["a", "ring", "b"])
    await eventually(lambda: texts(target, "shop-2"), ["two"])
    assert texts(target, "other") == []
    bench.messages.lose_worker("shop-1")
    worker.keep("c", "d")
    worker.drop(5)
    bench.messages.connect_worker("shop-1")
    await eventually(lambda: texts(target, "shop-1")[3:], ["message_gap", "d"])


async def test_a_new_webhook_begins_with_the_next_message_and_in_a_new_session_with_the_first(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    worker = bench.messages.add("shop")
    worker.keep(*(str(number) for number in range(500)), kept=time.time() - 60)
    down = bench.messages.add("down")
    down.keep("old", kept=time.time() - 60)
    bench.messages.lose_worker("down")
    bench.begin(hook(target), hook(target, "all", oldest=True, instances=("down",)))
    facts = "webhook_message.crm.shop"
    await eventually(lambda: bench.store.get_facts(facts))
    assert sum(do == "messages" for do, _ in worker.asked) < 20  # by halves
    bench.messages.keep("shop", "next")
    down.keep("while it was not looked at")
    bench.messages.connect_worker("down")
    bench.messages.add("new", created_wall=time.time())
    bench.messages.keep("new", "first", "second")
    await eventually(lambda: texts(target, "shop"), ["next"])
    await eventually(lambda: texts(target, "new"), ["first", "second"])
    await eventually(lambda: sorted(texts(target, "down")),
                     ["old", *["while it was not looked at"] * 2])  # fmt: skip


async def test_what_a_kill_interrupts_is_sent_again_and_nothing_else_before_it(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    bench.messages.add("shop")
    await bench.begun(hook(target))
    bench.messages.keep("shop", *map(str, range(20)))
    await eventually(lambda: len(texts(target)) == 20)
    await eventually(lambda: bench.store.get_facts("webhook_message.crm.shop"))
    await eventually(lambda: _cursor(bench, "shop"), 20)
    target.answering.clear()
    bench.messages.keep("shop", "in flight", "behind it")
    await eventually(lambda: len(target.asked) == 21)
    await bench.end()
    target.answering.set()
    await bench.begun(hook(target))
    await eventually(lambda: texts(target)[-1] == "behind it")
    names = [one.headers["X-WA-Delivery"] for one in target.asked]
    assert names[20] == names[21]  # the receiver knows it by its name
    assert [name.split("-")[1] for name in names[21:]] == ["21", "22"]


async def _cursor(bench: Bench, id: str) -> int:
    text = await bench.store.get_fact(f"webhook_message.crm.{id}")
    return 0 if text is None else json.loads(text)["cursor"]


async def test_a_worker_that_hangs_delays_no_other_session(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    for number in range(SESSIONS // 2):
        bench.messages.add(f"slow-{number}").leave.clear()
    bench.messages.add("quick")
    bench.begin(hook(target, oldest=True))
    bench.messages.keep("quick", "a")
    await eventually(lambda: texts(target), ["a"])
    for worker in bench.messages.workers.values():
        worker.leave.set()
    bench.messages.keep("slow-3", "b")
    await eventually(lambda: texts(target, "slow-3"), ["b"], within=60)


async def test_a_refused_message_is_given_up_and_said_without_its_text(
    bench: Bench, target: Receiver, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    bench.messages.add("shop")
    await bench.begun(hook(target, tries=2))
    target.status = lambda body: 422 if body.get("text") == SECRET_TEXT else 200
    bench.messages.keep("shop", SECRET_TEXT, "next")
    await eventually(lambda: texts(target), ["next"])
    assert len(target.asked) == 3
    (told,) = await bench.store.history(kinds=["webhook_dead"])
    assert "it refused record 1 of shop (message), which is given up" in told.sentence
    facts = await bench.store.get_facts("webhook")
    events = [one.sentence for one in await bench.store.history(limit=100)]
    for said in (*facts.values(), *events, caplog.text):
        assert SECRET_TEXT not in said
        assert "5511" not in said


async def test_while_the_target_fails_one_session_tries_for_all(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    names = [f"shop-{number}" for number in range(20)]
    for name in names:
        bench.messages.add(name)
    webhooks = await bench.begun(hook(target))
    target.status = lambda body: 503
    for name in names:
        bench.messages.keep(name, "a")
    await eventually(lambda: webhooks.views()[0].circuit != "closed", within=900)
    assert len(target.asked) <= 8 + 5, "those under way, and one after another"
    assert webhooks.views()[0].messages == 20
    target.status = lambda body: 200
    await eventually(lambda: sorted(texts(target)), ["a"] * 20, within=900)


async def test_nothing_is_settled_before_a_declared_webhook_has_begun(
    bench: Bench, target: Receiver
) -> None:
    worker = bench.messages.add("shop")
    worker.keep("a")
    bench.messages.add("other").keep("a")
    Webhooks(
        [hook(target, instances=("shop",))],
        bench.store,
        EventBus(),
        bench.messages.reader,
        sender=("m1", "9.9"),
        views=lambda: bench.messages.sessions,
    )
    for id in bench.messages.workers:
        bench.messages.tell(id)
    states = [("messages_settled", {"cursor": 0}), ("messages_state", {})]
    await bench.eventually(lambda: worker.asked, states)
    await bench.eventually(lambda: bench.messages.workers["other"].asked, states[1:])
