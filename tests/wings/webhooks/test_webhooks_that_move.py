"""A session moves to another machine while webhooks get its messages: they go on as they were."""

import asyncio
from pathlib import Path

from agent.core.fleet.baggage import Journey
from agent.core.model import InstanceId
from agent.store.database import Store
from tests.conftest import Eventually
from tests.fakes.messages import FakeMessages
from tests.wings.webhooks.receiver import Receiver
from tests.wings.webhooks.test_webhooks_of_messages import Bench, bench, hook, target, texts

__all__ = ["bench", "target"]

SHOP = InstanceId("shop")


async def test_a_webhook_goes_on_behind_what_it_took_on_the_machine_before(
    bench: Bench, target: Receiver, eventually: Eventually, tmp_path: Path
) -> None:
    first = 1_800_000_000_000
    bench.messages.add("shop", created_wall=5.0, first=first)
    before = await bench.begun(hook(target))
    bench.messages.keep("shop", "a", "b")
    await eventually(lambda: texts(target), ["a", "b"])
    target.answering.clear()
    bench.messages.keep("shop", "c", "d", "e")
    await eventually(lambda: len(target.asked) == 3)
    bag = before.bag
    assert bag is not None
    leaving = asyncio.create_task(bag.leave(SHOP))
    await asyncio.sleep(0)
    target.answering.set()
    await leaving
    assert texts(target) == ["a", "b", "c"], "what was under way ends, and nothing more is begun"
    bench.messages.keep("shop", "f")
    packing = await bag.pack(SHOP, fresh=True, exact=True)

    store = await Store.open(tmp_path / "other.db")
    other = Bench(store, FakeMessages(store), eventually)
    try:
        after = other.begin(hook(target))
        await eventually(lambda: "crm" in after._carriers and after._carriers["crm"]._cursors)
        assert after.bag is not None

        async def read(name: str) -> bytes:
            return packing.write[name]()

        journey = Journey(exact=True, stored_wall=0.0, folder=tmp_path, file_mode=0, group=None)
        for _ in range(2):
            await after.bag.unpack(SHOP, list(packing.write), read, journey)
        other.messages.add("shop", created_wall=5.0, first=first)
        other.messages.keep("shop", "a", "b", "c", "d", "e", "f")
        await eventually(lambda: texts(target), ["a", "b", "c", "d", "e", "f"])
        assert len(target.asked) == 6, "none was sent twice"
    finally:
        await other.end()
        await store.close()


async def test_a_move_that_is_undone_lets_the_webhook_go_on(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    bench.messages.add("shop")
    webhooks = await bench.begun(hook(target))
    bench.messages.keep("shop", "a")
    await eventually(lambda: texts(target), ["a"])
    bag = webhooks.bag
    assert bag is not None
    await bag.leave(SHOP)
    bench.messages.keep("shop", "b")
    bag.stay(SHOP)
    await eventually(lambda: texts(target), ["a", "b"])
