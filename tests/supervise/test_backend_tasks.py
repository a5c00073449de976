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
        look_again=lambda id, outage: None,
        note=lambda _: asyncio.get_running_loop().create_future(),
        breaker=lambda: BreakerPolicy(5, 600.0),
    )


URL = "http://127.0.0.1:1"


async def test_a_backend_that_is_closed_at_once_closes_its_connections(backends):
    for turns in range(8):
        await backends.take_on([BackendDeclaration(f"evo{turns}", "evolution", URL, key="k")])
        for _ in range(turns):
            await asyncio.sleep(0)
        await backends.close()
    gc.collect()  # what was left open warns then, and a warning fails the test


async def test_a_key_that_changes_during_a_slow_close_begins_one_task(
    backends, tmp_path: Path, monkeypatch, eventually
):
    key, running, most = tmp_path / "key", [], []
    closing, may_close = asyncio.Event(), asyncio.Event()

    async def run(self):
        running.append(self)
        most.append(len(running))
        try:
            await asyncio.Event().wait()
        finally:
            closing.set()
            await may_close.wait()
            running.remove(self)
            await self.api.close()

    monkeypatch.setattr(Server, "run", run)
    key.write_text("first")
    declared = BackendDeclaration("evo", "evolution", URL, key_file=str(key))
    await backends.take_on([declared])
    await eventually(lambda: len(running) == 1)
    first = running[0]
    await backends.take_on([declared])  # the same key
    for text in ("second", "third"):
        key.write_text(text)
        await backends.take_on([declared])
    await closing.wait()
    may_close.set()
    await eventually(lambda: running and running[0] is not first)
    assert running[0].declared.key == "third"
    assert running[0] is backends.all["evo"].server
    await backends.close()
    assert (running, max(most)) == ([], 1)


async def test_a_key_that_cannot_be_read_is_read_again(backends, tmp_path: Path, eventually):
    key = tmp_path / "key"
    declared = BackendDeclaration("evo", "evolution", URL, key_file=str(key))
    await backends.take_on([declared])
    one = backends.all["evo"]
    await eventually(lambda: one.unread)
    assert str(key) in one.sentence and one.server is None
    key.write_text("k")
    await backends.take_on([declared])
    await eventually(lambda: one.server)
    await backends.close()
