"""Webhooks that get what arrives in sessions: every record, in order, whatever happens."""

import asyncio
import time
from typing import Any

import pytest

from agent.core.model import InstanceId
from agent.errors import StoreError
from agent.store.database import Store
from agent.webhooks.courier import GAP, PAGE, POSTS, SESSIONS
from agent.webhooks.settings import WebhookDeclaration
from tests.conftest import Eventually
from tests.webhooks.carrying.bench import Bench, settings
from tests.webhooks.carrying.bench import hook as any_hook
from tests.webhooks.receiver import Receiver

SECRET_TEXT = "for nobody's log"


def hook(target: Receiver, name: str = "crm", **more: Any) -> WebhookDeclaration:
    return any_hook(target, name, **{"kinds": ("message*",), **more})


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
    await bench.begin(hook(target, longest_age=0.01))  # of events: what is kept does not age here
    many = [str(number) for number in range(PAGE * 2 + 7)]
    worker.keep(*many, kept=time.time() - 60.0)
    bench.messages.tell("shop")
    await eventually(lambda: texts(target), many)
    found = target.taken[-1]
    (record,) = (await bench.messages.reader.page(InstanceId("shop"), worker.newest - 1)).records
    sender = {name: found.body[name] for name in ("machine", "agent")}
    assert found.body == {**record, "instance": "shop", **sender}
    kept_ms = round(record["kept"] * 1000)
    assert found.headers["webhook-id"] == f"shop-{record['cursor']}-{kept_ms}"
    await eventually(lambda: worker.settled()[-1:] == [worker.newest])


@pytest.mark.parametrize("kinds", [("*",), ("m*",)])
async def test_messages_go_only_to_who_names_them(
    bench: Bench, target: Receiver, eventually: Eventually, kinds: tuple[str, ...]
) -> None:
    worker = bench.messages.add("shop")
    webhooks = await bench.begin(hook(target, kinds=kinds))
    bench.messages.keep("shop", "a")
    await bench.say("an event")
    if kinds == ("*",):
        await eventually(lambda: [one.body["kind"] for one in target.taken], ["status"])
    assert [view["messages"] for view in webhooks.views()] == [None]
    assert "messages" not in [do for do, _ in worker.asked]


async def test_kinds_and_sessions_are_chosen_and_a_gap_always_comes(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    for name in ("shop-1", "shop-2", "other"):
        bench.messages.add(name)
    chosen = hook(target, kinds=("message", "call"), instances=("shop-*",), oldest=True)
    worker = bench.messages.workers["shop-1"]
    worker.keep("a")
    await bench.begin(chosen)
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
    target.status = lambda body: 200 if body["kind"] == GAP else 503
    bench.messages.connect_worker("shop-1")
    await eventually(lambda: bench.store.get_fact(bench.fact("crm", "shop-1")), "5")
    target.status = lambda body: 200
    await eventually(lambda: texts(target, "shop-1")[3:], ["message_gap", "d"])


async def test_a_new_webhook_begins_with_the_next_message_and_in_a_new_session_with_the_first(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    worker = bench.messages.add("shop")
    worker.keep(*(str(number) for number in range(500)), kept=time.time() - 60)
    down = bench.messages.add("down")
    down.keep("old", kept=time.time() - 60)
    bench.messages.lose_worker("down")
    await bench.begin(hook(target), hook(target, "all", oldest=True, instances=("down",)))
    assert sum(do == "messages" for do, _ in worker.asked) < 3
    bench.messages.keep("shop", "next")
    down.keep("while it was not looked at")
    bench.messages.connect_worker("down")
    bench.messages.add("new", created_wall=time.time())
    bench.messages.keep("new", "first", "second")
    await eventually(lambda: texts(target, "shop"), ["next"])
    await eventually(lambda: texts(target, "new"), ["first", "second"])
    await eventually(lambda: sorted(texts(target, "down")),
                     ["old", *["while it was not looked at"] * 2])  # fmt: skip


async def test_sessions_that_a_reload_adds_begin_with_their_next_message(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    old = bench.messages.add("old")
    await bench.begin(hook(target, instances=("new*",)))
    await asyncio.sleep(1)
    old.keep("past")
    await asyncio.sleep(1)
    await bench.end()
    await bench.begin(hook(target))
    bench.messages.keep("old", "next")
    await eventually(lambda: texts(target), ["next"])


@pytest.mark.parametrize("oldest", [False, True])
async def test_a_session_that_is_made_anew_is_sent_from_its_first_message(
    bench: Bench, target: Receiver, eventually: Eventually, oldest: bool
) -> None:
    first = bench.messages.add("shop")
    await bench.begin(hook(target, oldest=oldest))
    bench.messages.keep("shop", "a", "b")
    await eventually(lambda: texts(target), ["a", "b"])
    bench.messages.remove("shop")
    bench.messages.add("shop", created_wall=time.time())
    bench.messages.keep("shop", "c")
    await eventually(lambda: texts(target), ["a", "b", "c"])
    bench.messages.add("shop")
    bench.messages.workers["shop"] = first  # from the trash
    bench.messages.keep("shop", "d")
    await eventually(lambda: texts(target)[3:], ["d"])


async def test_what_a_kill_interrupts_is_sent_again_and_nothing_else_before_it(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    bench.messages.add("shop")
    await bench.begin(hook(target))
    bench.messages.keep("shop", *map(str, range(20)))
    await eventually(lambda: len(texts(target)) == 20)
    await eventually(lambda: bench.store.get_fact(bench.fact("crm", "shop")), "20")
    target.answering.clear()
    bench.messages.keep("shop", "in flight", "behind it")
    await eventually(lambda: len(target.asked) == 21)
    await bench.end()
    bench.messages.reader._sessions.clear()
    webhooks = await bench.begin(hook(target))
    await eventually(lambda: webhooks.views()[0]["messages"], 2)
    target.answering.set()
    await eventually(lambda: texts(target)[-1:] == ["behind it"])
    names = [one.headers["webhook-id"] for one in target.asked]
    assert names[20] == names[21]  # the receiver knows it by its name
    assert [name.split("-")[1] for name in names[21:]] == ["21", "22"]


async def test_what_could_not_be_noted_is_no_more_than_a_kill_sends_again(
    bench: Bench, target: Receiver, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(facts: object) -> None:
        raise StoreError("cannot write: the disk is full", code="disk_full")

    bench.messages.add("shop")
    await bench.begin(hook(target))
    many = [str(number) for number in range(PAGE * 3)]
    with monkeypatch.context() as disk:
        disk.setattr(Store, "put_facts", lambda _, facts: full(facts))
        bench.messages.keep("shop", *many)
        await asyncio.sleep(300)
        assert len(target.asked) == PAGE
    await eventually(lambda: texts(target), many, within=900)


async def test_a_worker_that_hangs_delays_no_other_session(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    for number in range(SESSIONS // 2):
        bench.messages.add(f"slow-{number}").leave.clear()
    bench.messages.add("quick")
    await bench.begin(hook(target, oldest=True))
    bench.messages.keep("quick", "a")
    await eventually(lambda: texts(target), ["a"])
    for worker in bench.messages.workers.values():
        worker.leave.set()
    bench.messages.keep("slow-3", "b")
    await eventually(lambda: texts(target, "slow-3"), ["b"], within=120)


async def test_a_refused_message_is_given_up_and_said_without_its_text(
    bench: Bench, target: Receiver, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    bench.messages.add("shop")
    await bench.begin(hook(target, tries=2))
    target.status = lambda body: 422 if body.get("text") == SECRET_TEXT else 200
    bench.messages.keep("shop", SECRET_TEXT, "next")
    await eventually(lambda: texts(target), ["next"])
    assert len(target.asked) == 3
    (told,) = await bench.told("webhook_dead")
    assert "it refused record 1 of shop (message), which is given up" in told
    facts = await bench.store.get_facts("webhook")
    events = [one.sentence for one in await bench.store.history(limit=100)]
    for said in (*facts.values(), *events, caplog.text):
        assert SECRET_TEXT not in said
        assert "5511" not in said


async def test_while_the_target_fails_one_session_tries_for_all(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    for number in range(20):
        bench.messages.add(f"shop-{number}")
    webhooks = await bench.begin(hook(target))
    target.status = lambda body: 503
    for name, worker in bench.messages.workers.items():
        worker.begin_at(10**9)  # the cursors of a worker that began again
        bench.messages.keep(name, "a")
    await eventually(lambda: webhooks.views()[0]["circuit"] != "closed", within=900)
    assert len(target.asked) <= POSTS + 5, "those under way, and one after another"
    await asyncio.sleep(60)
    assert webhooks.views()[0]["messages"] == 20
    noted = await bench.store.get_fact(bench.fact("crm", "shop-3"))
    assert noted == str(10**9), "in hand, and no more one that begins"
    target.status = lambda body: 200
    await eventually(lambda: sorted(texts(target)), ["a"] * 20, within=900)


async def test_nothing_is_settled_before_a_declared_webhook_has_begun(
    bench: Bench, target: Receiver
) -> None:
    worker, other = bench.messages.add("shop"), bench.messages.add("other")
    worker.keep("a")
    other.keep("a")
    webhooks = bench.open(hook(target, instances=("other",)))
    webhooks.reload(settings(hook(target, instances=("shop",))))
    for id in bench.messages.workers:
        bench.messages.tell(id)
    await bench.eventually(worker.settled, [0])
    await bench.eventually(lambda: other.asked, [("messages_state", {"cursors": {"/": 0}})])
