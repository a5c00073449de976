"""Webhooks: every event arrives, in order, whatever the target does meanwhile."""

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from agent.core.model import InstanceId, JournalEntry
from agent.deliver.bus import EventBus
from agent.store.database import Store
from agent.wings.webhooks.all import Webhooks
from agent.wings.webhooks.post import Answer, Parcel, RequestLine
from agent.wings.webhooks.settings import WebhookDeclaration
from tests.conftest import Eventually
from tests.fakes.messages import FakeMessages
from tests.listener import Listener
from tests.wings.webhooks.receiver import Receiver

SECRET = "a secret of sixteen or more"


@dataclass
class Bench:
    """A store, its bus, and webhooks that can be ended and begun again."""

    store: Store
    bus: EventBus
    _eventually: Eventually
    _running: list[asyncio.Task[None]] = field(default_factory=list)

    async def begin(self, *declared: WebhookDeclaration) -> Webhooks:
        reader = FakeMessages().reader
        one = Webhooks(declared, self.store, self.bus, reader, sender=("m1", "9.9"), views=dict)
        self._running.append(asyncio.create_task(one.run()))
        # Each has its place: what is said from here on is sent.
        await self._eventually(
            lambda: [view.name for view in one.views() if view.cursor],
            sorted(each.name for each in declared),
        )
        return one

    async def end(self) -> None:
        for task in self._running:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._running.clear()

    async def say(self, sentence: str, kind: str = "status", **more: Any) -> JournalEntry:
        (stored,) = await self.store.append(JournalEntry(kind, sentence, **more))
        return stored

    async def kinds(self) -> list[str]:
        return [one.kind for one in reversed(await self.store.history(limit=1000))]


@pytest.fixture
async def bench(tmp_path: Path, eventually: Eventually) -> AsyncIterator[Bench]:
    store, bus = await Store.open(tmp_path / "agent.db"), EventBus()
    store.on_append = bus.publish
    one = Bench(store, bus, eventually)
    await one.say("before everything")
    yield one
    await one.end()
    await store.close()


@pytest.fixture
async def target() -> AsyncIterator[Receiver]:
    async with Receiver().open() as one:
        yield one


def hook(target: Receiver, name: str = "ops", **more: Any) -> WebhookDeclaration:
    told = {"url": target.url, "private": True, "timeout": 30.0, **more}
    return WebhookDeclaration(name, **told)


def only(webhooks: Webhooks) -> Any:
    (view,) = webhooks.views()
    return view


async def test_events_arrive_in_order_as_the_api_shows_them(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    webhooks = await bench.begin(hook(target))
    said = [await bench.say(f"event {number}") for number in range(250)]
    last = await bench.say(
        "it is connected",
        "verdict",
        instance=InstanceId("a"),
        wall=1_800_000_000.5,
        detail={"x": 1},
    )
    await eventually(lambda: target.sentences()[-1:] == ["it is connected"])
    assert target.ids() == sorted(target.ids())
    assert [one.cursor for one in (*said, last)] == target.ids()[-251:]
    found = target.taken[-1]
    assert found.body == {
        "id": last.cursor,
        "time": "2027-01-15T08:00:00.500Z",
        "category": "SESSION",
        "kind": "verdict",
        "instance": "a",
        "sentence": "it is connected",
        "detail": {"x": 1},
        "machine": "m1",
        "agent": "9.9",
    }
    assert found.headers["X-WA-Event"] == "verdict"
    assert found.headers["X-WA-Delivery"] == f"{last.cursor}-1800000000500"
    assert found.headers["Content-Type"] == "application/json"
    assert found.headers["User-Agent"] == "wa-agent/9.9"
    assert "X-WA-Signature" not in found.headers
    await eventually(lambda: (only(webhooks).waiting, only(webhooks).state), (0, "idle"))
    assert webhooks.figures().results["delivered"] == len(target.taken)


async def test_the_signature_can_be_verified(
    bench: Bench, target: Receiver, eventually: Eventually, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    file.chmod(0o600)
    await bench.begin(hook(target, secret_file=str(file)))
    await bench.say("signed")
    await eventually(lambda: "signed" in target.sentences())
    found = target.taken[-1]
    moment, signed = found.headers["X-WA-Signature"].removeprefix("t=").split(",v1=")
    assert abs(int(moment) - time.time()) < 60
    mine = hmac.new(SECRET.encode(), moment.encode() + b"." + found.raw, hashlib.sha256)
    assert signed == mine.hexdigest()


async def test_f61_a_target_that_is_down_gets_everything_when_it_is_back(
    bench: Bench, eventually: Eventually
) -> None:
    target = Receiver()
    async with target.open() as open_now:
        port = open_now.port
    webhooks = await bench.begin(hook(target))
    for number in range(120):
        await bench.say(f"event {number}")
    await eventually(lambda: only(webhooks).circuit != "closed", within=900)
    view = only(webhooks)
    assert view.state == "failing"
    assert "cannot be reached" in view.problem
    await eventually(lambda: only(webhooks).waiting >= 120)
    assert webhooks.figures().waiting == only(webhooks).waiting
    assert webhooks.figures().oldest_wall == only(webhooks).oldest_wall <= time.time()
    async with target.open(port):
        await eventually(lambda: only(webhooks).waiting, 0, within=900)
        ours = [one for one in target.sentences() if one.startswith("event")]
        assert ours == [f"event {number}" for number in range(120)]
        assert webhooks.figures().oldest_wall is None
        kinds = await bench.kinds()
        assert (kinds.count("webhook_failing"), kinds.count("webhook_back")) == (1, 1)
        assert only(webhooks).problem == ""


@pytest.mark.parametrize("status", [429, 503])
async def test_f61_what_is_not_taken_now_is_tried_until_it_is(
    bench: Bench, target: Receiver, eventually: Eventually, status: int
) -> None:
    answers = iter([status] * 6)
    target.status = lambda body: next(answers, 200)
    webhooks = await bench.begin(hook(target, tries=1))
    one = await bench.say("patience")
    await eventually(lambda: one.cursor in target.ids(), within=900)
    await eventually(lambda: webhooks.figures().results["failed"], 6)
    assert webhooks.figures().results["dead"] == 0
    assert len({asked.headers["X-WA-Delivery"] for asked in target.asked[:7]}) == 1


async def test_f61_a_wait_that_the_target_asks_for_is_kept(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    target.status, target.headers = lambda body: 429, {"Retry-After": "120"}
    webhooks = await bench.begin(hook(target))
    await bench.say("later")
    await eventually(lambda: only(webhooks).next_try_wall)
    assert 100 < only(webhooks).next_try_wall - time.time() <= 121
    target.status, target.headers = lambda body: 200, {}
    await webhooks.retry("ops")
    await eventually(lambda: "later" in target.sentences())


ODD = (
    b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nOK",
    b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\nOK",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK and more",
    b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\nnot a chunk",
)


async def test_what_is_answered_with_2xx_is_taken_whatever_follows() -> None:
    posted = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal posted
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)
                writer.write(ODD[posted % len(ODD)])
                posted += 1
                await writer.drain()

    server = await Listener(serve).open()
    line = await RequestLine.open(
        WebhookDeclaration("odd", url=f"http://127.0.0.1:{server.port}/", private=True), "9.9"
    )
    try:
        for _ in range(3 * len(ODD)):
            reply = await line.post(Parcel("status", "1", 0.0, b"{}", "it"))
            assert (reply.answer, reply.problem) == (Answer.TAKEN, ""), posted
        assert posted == 3 * len(ODD)
    finally:
        await line.close()
        await server.close()


async def test_f61_a_slow_target_costs_the_others_nothing(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    async with Receiver().open() as slow:
        slow.answering.clear()
        webhooks = await bench.begin(hook(slow, "slow", timeout=3600.0), hook(target, "quick"))
        for number in range(100):
            await bench.say(f"event {number}")
        await eventually(lambda: "event 99" in target.sentences())
        assert slow.taken == []
        quick, late = webhooks.views()
        assert (quick.name, late.name) == ("quick", "slow")
        await eventually(lambda: webhooks.views()[1].waiting >= 100)


async def test_f61_what_is_refused_is_given_up_and_the_next_goes_on(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    target.status = lambda body: 422 if body["sentence"].startswith("bad") else 200
    webhooks = await bench.begin(hook(target))
    bad = [await bench.say("bad one"), await bench.say("bad two")]
    await bench.say("good")
    await eventually(lambda: "good" in target.sentences())
    tried = [one.body["sentence"] for one in target.asked]
    assert (tried.count("bad one"), tried.count("bad two")) == (3, 3)
    results = webhooks.figures().results
    assert (results["dead"], results["failed"], only(webhooks).dead) == (2, 6, 2)
    told = [one.sentence for one in await bench.store.history(kinds=["webhook_dead"])]
    assert told == [
        f"webhook ops: it refused event {one.cursor} (status), which is given up: it answered 422"
        for one in reversed(bad)
    ]


async def test_f61_a_target_that_refuses_everything_is_tried_until_it_does_not(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    target.status = lambda body: 401
    webhooks = await bench.begin(hook(target, kinds=("status",), tries=1))
    for number in range(30):
        await bench.say(f"event {number}")
    await eventually(lambda: only(webhooks).circuit != "closed", within=900)
    assert (only(webhooks).dead, only(webhooks).waiting) == (10, 20)
    target.status = lambda body: 200
    await webhooks.retry("ops")
    await eventually(target.sentences, [f"event {number}" for number in range(10, 30)])


async def test_f61_what_left_the_journal_before_its_turn_is_said(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    webhooks = await bench.begin(hook(target))
    one = await bench.say("one")
    await eventually(lambda: only(webhooks).cursor, one.cursor)
    await bench.end()
    gone = [await bench.say(f"gone {number}") for number in range(7)]
    await bench.say("still there")
    await bench.store._writer.write(
        lambda db: db.execute("delete from journal where cursor <= ?", [gone[-1].cursor])
    )
    webhooks = await bench.begin(hook(target))
    await eventually(lambda: "still there" in target.sentences())
    assert webhooks.figures().results["expired"] == 7
    said = (await bench.store.history(kinds=("webhook_gap",)))[0]
    assert "7 entries left the journal" in said.sentence


async def test_a_reload_begins_changes_and_ends_webhooks(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    webhooks = await bench.begin(hook(target))
    first = await bench.say("first")
    await eventually(lambda: only(webhooks).cursor, first.cursor)
    async with Receiver().open() as other:
        webhooks.apply([replace(hook(target), url=other.url)])
        await bench.say("second")
        await eventually(lambda: "second" in other.sentences())
        assert "first" not in other.sentences(), "it goes on at its place"
        counted = webhooks.figures().results["delivered"]
        webhooks.apply([])
        await bench.say("third")
        assert webhooks.views() == []
        running = {"webhook ops"}
        await eventually(lambda: running & {task.get_name() for task in asyncio.all_tasks()}, set())
        assert webhooks.figures().results["delivered"] >= counted
        webhooks.apply([hook(target)])
        await eventually(lambda: "third" in target.sentences())
        assert "third" not in other.sentences()


async def test_a_secret_that_cannot_be_read_sends_nothing_unsigned(
    bench: Bench, target: Receiver, eventually: Eventually, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    webhooks = await bench.begin(hook(target, secret_file=str(file)))
    await bench.say("waits for its signature")
    await eventually(lambda: "secret_file of webhook ops" in only(webhooks).problem)
    assert target.asked == []
    file.write_text(SECRET)
    file.chmod(0o600)
    await eventually(lambda: "waits for its signature" in target.sentences())
    assert "X-WA-Signature" in target.taken[-1].headers


async def test_no_secret_is_in_a_log_an_error_or_the_journal(
    bench: Bench,
    eventually: Eventually,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    target: Receiver,
) -> None:
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "secret"
    file.write_text(SECRET)
    file.chmod(0o600)
    closed = f"http://127.0.0.1:1/services/{SECRET}?token=T-{SECRET}"

    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"no http at all\r\n\r\n")
        writer.close()

    server = await Listener(garbage).open()
    answers = iter([500, 302, 404])
    target.status = lambda body: next(answers, 200)
    declared = [
        hook(target, "a", secret_file=str(file), url=closed),
        hook(
            target,
            "b",
            secret_file=str(file),
            url=f"http://127.0.0.1:{server.port}/?token={SECRET}",
        ),
        hook(target, "c", secret_file=str(file), url=f"{target.url}?token={SECRET}"),
    ]
    webhooks = await bench.begin(*declared)
    await bench.say("something")
    await eventually(lambda: all(one.problem for one in webhooks.views()[:2]))
    await eventually(lambda: "something" in target.sentences())
    for name in ("a", "b", "c"):
        await webhooks.test(name)
    await eventually(lambda: webhooks.views()[0].circuit != "closed", within=900)
    assert webhooks.views()[0].problem == "it cannot be reached: Connection refused"
    assert webhooks.views()[1].problem in (
        "its answer is not HTTP",
        "it closed the connection without an answer",
    )
    journal = await bench.store.history(limit=1000)
    everything = (caplog.text, str(journal), str(webhooks.views()), repr(declared))
    assert not any(SECRET in text for text in everything)
    await server.close()
