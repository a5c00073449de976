"""One task for each server, and the key in its file."""

import asyncio
import gc
from pathlib import Path

import pytest

from agent.backends import backend as module
from agent.backends.backend import Seat
from agent.backends.declared import Backends
from agent.backends.evolution import Evolution
from agent.backends.http import ServerDown
from agent.config.config import BackendDeclaration
from agent.core.model import Instance, InstanceId, SessionRecord
from agent.core.words import ServerClaim
from agent.supervise.facts import Facts
from tests.fakes.servers import make_backends


@pytest.fixture
def backends(tmp_path: Path) -> Backends:
    return make_backends(tmp_path)


URL = "http://127.0.0.1:1"


async def test_what_is_opened_is_closed_also_while_sessions_are_taken_over(
    backends, monkeypatch, eventually
):
    id, opened, closed = InstanceId("one"), [], []
    declared = BackendDeclaration("evo", "evolution", URL, key="k")
    instance = Instance(id, "evolution", True, {"backend": "evo"})
    backends.instances[id] = Facts(instance, SessionRecord())
    close = Evolution.close

    async def hold(self, *_args, **_more):
        opened.append(self.declared.key)
        await asyncio.Event().wait()

    async def note_close(self):
        closed.append(self.declared.key)
        await close(self)

    monkeypatch.setattr(Evolution, "hold", hold)
    monkeypatch.setattr(Evolution, "close", note_close)
    await backends.take_on([declared])
    backends.all["evo"].seats[id] = Seat(backends.all["evo"], id, "run")
    await eventually(lambda: opened)
    await backends.close()
    assert closed == opened == ["k"]
    gc.collect()  # what was left open warns then, and a warning fails the test


async def test_a_key_is_read_again(backends, tmp_path: Path, monkeypatch, eventually):
    key, used = tmp_path / "key", []

    async def sessions(self):
        used.append(self.declared.key)
        if self.declared.key == "first":
            raise ServerDown("list", "refused_key", "it refuses the key")
        return ServerClaim(True), ()

    monkeypatch.setattr(Evolution, "sessions", sessions)
    monkeypatch.setattr(module, "EVERY", 0.1)
    monkeypatch.setattr(module, "SOON", 0.01)
    await backends.take_on([BackendDeclaration("evo", "evolution", URL, key_file=str(key))])
    one = backends.all["evo"]
    await eventually(lambda: str(key) in one.sentence)
    assert one.api is None
    key.write_text("first")
    await eventually(lambda: one.claim.reason == "refused_key")
    key.unlink()
    count = len(used)
    await eventually(lambda: len(used) > count + 1)
    key.write_text("second")
    await eventually(lambda: one.claim.up)
    assert {*used} == {"first", "second"}
    await backends.close()
