"""Couriers and their targets in one loop and in virtual time."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.deliver.bus import EventBus
from agent.store.database import Store
from tests.backends.conftest import pytest_asyncio_loop_factories, virtual_clocks
from tests.conftest import Eventually
from tests.fakes.messages import FakeMessages
from tests.webhooks.carrying.bench import Bench
from tests.webhooks.receiver import Receiver

__all__ = ["pytest_asyncio_loop_factories", "virtual_clocks"]


@pytest.fixture
async def bench(tmp_path: Path, eventually: Eventually) -> AsyncIterator[Bench]:
    store, bus = await Store.open(tmp_path / "agent.db"), EventBus()
    store.on_append = bus.publish
    one = Bench(store, bus, FakeMessages(), eventually)
    reading = asyncio.create_task(one.messages.reader.run())
    await one.say("before everything")
    yield one
    await one.end()
    reading.cancel()
    await store.close()


@pytest.fixture
async def target() -> AsyncIterator[Receiver]:
    async with Receiver().open() as one:
        yield one
