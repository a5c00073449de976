"""One task for each server, also while its key changes."""

import asyncio
import gc
from dataclasses import replace
from pathlib import Path

import pytest

from agent.backends.declared import Backends
from agent.backends.evolution import Evolution
from agent.backends.seat import Seat
from agent.config.declaration import BackendDeclaration
from agent.core.model import Instance, InstanceId, ServerClaim, SessionRecord
from agent.supervise.facts import Facts
from tests.fakes.servers import make_backends


@pytest.fixture
def backends(tmp_path: Path) -> Backends:
    return make_backends(tmp_path)


URL = "http://127.0.0.1:1"


@pytest.mark.parametrize("key_changes", [True, False])
async def test_what_is_opened_is_closed_also_while_sessions_are_taken_over(
    backends, monkeypatch, eventually, key_changes
):
    id, opened, closed = InstanceId("one"), [], []
    declared = BackendDeclaration("evo", "evolution", URL, key="k")
    instance = Instance(id, "evolution", True, {"backend": "evo"})
    backends.instances[id] = Facts(instance, SessionRecord())
    close = Evolution.close

    async def hold(self, *_args, **_more):
        opened.append(self.declared.key)
        if key_changes and not closed:
            backends.all["evo"].secret = replace(declared, key="other")
        else:
            await asyncio.Event().wait()

    async def note_close(self):
        closed.append(self.declared.key)
        await close(self)

    monkeypatch.setattr(Evolution, "hold", hold)
    monkeypatch.setattr(Evolution, "close", note_close)
    await backends.take_on([declared])
    backends.all["evo"].seats[id] = Seat(backends.all["evo"], id, "run")
    await eventually(lambda: len(opened) == 1 + key_changes)
    await backends.close()
    assert closed == opened == (["k", "other"] if key_changes else ["k"])
    gc.collect()  # what was left open warns then, and a warning fails the test


async def test_a_key_that_changes_during_a_slow_close_begins_one_task(
    backends, tmp_path: Path, monkeypatch, eventually
):
    key, opened = tmp_path / "key", []
    closing, may_close = asyncio.Event(), asyncio.Event()
    close = Evolution.close

    async def sessions(self):
        opened.append(self.declared.key)
        return ServerClaim(True), ()

    async def slow_close(self):
        closing.set()
        await may_close.wait()
        await close(self)

    monkeypatch.setattr(Evolution, "sessions", sessions)
    monkeypatch.setattr(Evolution, "close", slow_close)
    key.write_text("first")
    declared = BackendDeclaration("evo", "evolution", URL, key_file=str(key))
    await backends.take_on([declared])
    await eventually(lambda: opened == ["first"])
    await backends.take_on([declared])  # the same key
    backends.all["evo"].key_changed.set()
    for _ in range(9):
        await asyncio.sleep(0)
    assert not closing.is_set()
    for text in ("second", "third"):
        key.write_text(text)
        await backends.take_on([declared])
    await closing.wait()
    may_close.set()
    await eventually(lambda: opened == ["first", "third"])
    await backends.close()


async def test_a_key_that_cannot_be_read_is_read_again(backends, tmp_path: Path, eventually):
    key = tmp_path / "key"
    declared = BackendDeclaration("evo", "evolution", URL, key_file=str(key))
    await backends.take_on([declared])
    one = backends.all["evo"]
    await eventually(lambda: one.unread)
    assert str(key) in one.sentence and one.api is None
    key.write_text("k")
    await backends.take_on([declared])
    await eventually(lambda: one.api)
    await backends.close()
