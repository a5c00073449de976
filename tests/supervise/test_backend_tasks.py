"""One task for each server, also while its key changes."""

import asyncio
import gc
from pathlib import Path

import pytest

from agent.backends.declared import Backends
from agent.backends.server import Server
from agent.config.declaration import BackendDeclaration
from agent.core.breaker import BreakerPolicy


@pytest.fixture
def backends(tmp_path: Path) -> Backends:
    return Backends(
        root=tmp_path,
        instances={},
        store=None,
        wake=lambda _: None,
        wake_backend=lambda _: None,
        look_again=lambda id, outage: None,
        note=lambda _: asyncio.get_running_loop().create_future(),
        breaker=lambda: BreakerPolicy(5, 600.0),
    )


async def test_a_task_that_ends_before_its_first_turn_closes_its_connections(backends):
    await backends.add(BackendDeclaration("evo", "evolution", "http://127.0.0.1:1", key="k"))
    await backends.all["evo"].begin()
    await backends.all.pop("evo").unwatch()
    gc.collect()  # what was left open warns then, and a warning fails the test


async def test_a_key_that_changes_during_a_slow_close_begins_one_task(
    backends, tmp_path: Path, monkeypatch
):
    key, running = tmp_path / "key", []
    closing, may_close = asyncio.Event(), asyncio.Event()

    async def run(self):
        running.append(self)
        try:
            await asyncio.Event().wait()
        finally:
            closing.set()
            await may_close.wait()
            running.remove(self)
            await self.api.close()

    monkeypatch.setattr(Server, "run", run)
    key.write_text("first")
    url = "http://127.0.0.1:1"
    await backends.add(BackendDeclaration("evo", "evolution", url, key_file=str(key)))
    one = backends.all["evo"]
    await one.begin()
    await asyncio.sleep(0)
    key.write_text("second")
    again = asyncio.create_task(backends.read_secrets_again("evo"))
    await closing.wait()
    by_pass = asyncio.create_task(one.begin())
    await asyncio.sleep(0)
    may_close.set()
    await asyncio.gather(again, by_pass)
    await asyncio.sleep(0)
    assert len(running) == 1
    assert running[0] is one.server
    await backends.close()
    assert running == []
