"""Several sessions in one worker: each begins, ends, fails and hangs on its own."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.core.model import ConnectionStatus, InstanceId, UnitState, parse_instance_id
from agent.core.words import Claim
from agent.engines.sandbox.engine import SandboxEngine, open_engine
from agent.errors import EngineError
from agent.host.life import Worker
from agent.link.client import Link, Listener
from agent.worker import pack as member_module
from agent.worker.identity import lock_held
from agent.worker.pack import Members, follow_tasks
from tests.worker import conftest
from tests.worker.conftest import QUICK

until = conftest.Bench.until
SHOP, TILL = parse_instance_id("shop"), parse_instance_id("till")


class Bench:
    """The members of one pack, in this process, and their engines."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root / "sessions", root / "run"
        for place in (self.root, self.folder, self.folder / "members"):
            place.mkdir()
        self.engines: dict[str, SandboxEngine] = {}
        self.reporters: dict[str, Any] = {}
        self.abandoned: list[str] = []
        self.broken: list[str] = []
        self.claims: dict[str, list[Claim]] = {}
        self.watchdog: float | None = None
        self.members = self.make()
        self.links: list[Link] = []

    def make(self) -> Members:
        links = self.folder / "members"
        members = Members(self.root, links, self._open, self.watchdog, self.broken.append)
        members.begin()
        return members

    async def hold(self, id: InstanceId) -> None:
        """A new session."""
        (self.root / id / "session").mkdir(parents=True)
        told = {"version": 1, "id": id, "engine": "sandbox", "enabled": True, "settings": QUICK}
        (self.root / id / "instance.json").write_text(json.dumps(told))
        await self.members.hold(id)

    def _open(self, folder: Path, settings: Mapping[str, Any], reporter: Any) -> Any:
        id = folder.parent.name
        engine = self.engines[id] = open_engine(folder, settings, reporter)
        self.reporters[id] = reporter

        async def abandon() -> None:
            self.abandoned.append(id)
            await engine.close()

        engine.abandon = abandon  # type: ignore[attr-defined]
        return engine

    def member(self, id: str) -> Worker:
        return self.members.all[parse_instance_id(id)]

    def run(self, id: str) -> str:
        return self.member(id).status.run

    async def link(self, id: str) -> Link:
        heard = self.claims[id] = []
        link = await Link.open(
            self.folder / "members" / id / "link.sock",
            parse_instance_id(id),
            os.getpid(),
            Listener(lambda _run, claim: heard.append(claim), lambda *_: None, lambda _: None),
        )
        self.links.append(link)
        assert link.hello.run == self.run(id)
        return link

    async def connected(self, id: str) -> Link:
        link = await self.link(id)
        await until(lambda: any(c.status is ConnectionStatus.CONNECTED for c in self.claims[id]))
        return link


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    loop = asyncio.get_running_loop()
    follow_tasks(loop)
    made = Bench(tmp_path)
    yield made
    for link in made.links:
        await link.close()
    await made.members.stop()
    loop.set_task_factory(None)


async def test_each_session_has_its_own_lock_link_and_end(bench: Bench) -> None:
    for id in (SHOP, TILL):
        await bench.hold(id)
        assert bench.member(id).state is UnitState.ACTIVE
    await bench.connected(SHOP)
    till = await bench.connected(TILL)
    with pytest.raises(Exception, match="another worker holds"), lock_held(bench.root / SHOP):
        pass
    assert len(bench.members.running()) == 2
    assert (await till.call("own_use"))["memory_bytes"] > 0

    before = bench.run(TILL)
    await asyncio.gather(*(bench.members.release(SHOP) for _ in range(2)))  # at the same time
    assert list(bench.members.all) == [TILL]
    with lock_held(bench.root / SHOP):
        pass
    assert not (bench.folder / "members" / SHOP / "link.sock").exists()
    assert (bench.run(TILL), bench.member(TILL).state) == (before, UnitState.ACTIVE)
    assert (await till.call("probe"))["claim"]["status"] == "CONNECTED"
    # Held again: another run, with what it saved.
    await bench.members.hold(SHOP)
    await bench.connected(SHOP)


async def test_an_engine_that_crashes_is_begun_again_without_a_save_and_alone(bench: Bench) -> None:
    for id in (SHOP, TILL):
        await bench.hold(id)
        await bench.connected(id)
    first, other = bench.run(SHOP), bench.run(TILL)
    bench.reporters[SHOP].crashed(RuntimeError("of the engine"))
    await until(lambda: bench.run(SHOP) != first and bench.member(SHOP).state is UnitState.ACTIVE)
    assert bench.abandoned == [SHOP]
    assert (bench.member(SHOP).status.restarts, bench.run(TILL)) == (1, other)
    await bench.connected(SHOP)


async def test_a_run_that_hangs_is_broken_off_and_the_others_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.watchdog = 0.4
    bench.members = bench.make()
    for id in (SHOP, TILL):
        await bench.hold(id)
        await bench.connected(id)
    first, other = bench.run(SHOP), bench.run(TILL)

    async def dead(**_how: Any) -> Any:
        raise EngineError("no answer")

    monkeypatch.setattr(bench.engines[TILL], "probe", dead)
    bench.claims[TILL].clear()
    await until(lambda: bench.claims[TILL])  # a member at rest speaks up, too

    async def hang(**_how: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(bench.engines[SHOP], "probe", hang)
    await until(lambda: bench.run(SHOP) != first and bench.member(SHOP).state is UnitState.ACTIVE)
    assert bench.run(TILL) == other and not bench.broken
    await bench.connected(SHOP)


async def test_a_task_that_does_not_end_ends_the_pack(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member_module, "LEFT_WITHIN", 0.05)
    await bench.hold(SHOP)
    link = await bench.connected(SHOP)
    goes_on = asyncio.Event()

    async def stubborn() -> None:
        while not goes_on.is_set():
            try:
                await goes_on.wait()
            except asyncio.CancelledError:
                continue

    async def begins(**_how: Any) -> Any:
        asyncio.create_task(stubborn())  # noqa: RUF006 - its run follows it
        raise EngineError("no answer")

    bench.engines[SHOP].probe = begins  # type: ignore[method-assign]
    with pytest.raises(EngineError):
        await link.call("probe")
    await bench.members.release(SHOP)
    assert bench.broken == ["shop ended, and a task of it goes on"]
    goes_on.set()


async def test_a_pack_that_is_started_again_begins_with_what_it_held(bench: Bench) -> None:
    for id in (SHOP, TILL):
        await bench.hold(id)
    await bench.members.release(TILL)
    await bench.members.stop()
    told = bench.members.statuses()
    assert [(id, its["state"]) for id, its in told.items()] == [(SHOP, "deactivating")]
    bench.members = bench.make()
    await until(lambda: bench.member(SHOP).state is UnitState.ACTIVE)
    assert list(bench.members.all) == [SHOP]
    assert bench.member(SHOP).status.restarts == 1
