"""Packs as the agent sees them: started with the first session, kept, stopped after the last."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.core.model import (
    UNIT_ABSENT,
    Instance,
    InstanceId,
    SessionRecord,
    UnitState,
    UnitStatus,
)
from agent.core.words import Happening
from agent.errors import HostError
from agent.link.client import LinkStats
from agent.link.messages import Call, Hello
from agent.link.server import LinkServer
from agent.supervise.facts import Facts
from agent.supervise.packs.packs import Packs

PACK, OWN_PID = InstanceId("baileys-1"), os.getpid()


class Worker:
    """The worker of a pack as its link shows it."""

    def __init__(self, path: Path, name: InstanceId, run: str) -> None:
        self.members: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.fails = False
        self._path, self._hello = path, Hello(name, run, "baileys", OWN_PID)

    async def open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self.server = await LinkServer.open(self._path, self._hello, self._answer, lambda: {})

    async def _answer(self, call: Call) -> Mapping[str, Any]:
        if call.do == "members":
            return {"members": self.members}
        id = str(call.args["id"])
        self.asked.append(f"{call.do} {id}")
        if call.do == "hold":
            if self.fails:
                status = {"state": "failed", "result": "exit-code", "exit_status": 66}
            else:
                status = {"state": "active", "run": f"run of {id}", "restarts": 0, "since": 1.0}
            self.members[id] = status
        elif call.do == "release":
            self.members[id] = {**self.members.get(id, {}), "state": "inactive"}
            if call.args.get("forget"):
                return {"member": self.members.pop(id)}
        elif call.do == "reset_failed":
            return {}
        return {"member": self.members[id]}


class PackHost:
    """Starts the worker of a pack in this process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []
        self.units: dict[InstanceId, UnitStatus] = {}
        self.workers: dict[InstanceId, Worker] = {}
        self.refuses = False
        self.runs = 0

    async def list(self) -> Mapping[InstanceId, UnitStatus]:
        return self.units

    async def status(self, id: InstanceId) -> UnitStatus:
        return self.units.get(id, UNIT_ABSENT)

    async def start(self, id: InstanceId) -> None:
        self.asked.append(f"start {id}")
        if self.refuses:
            raise HostError("no such template")
        self.runs += 1
        self.workers[id] = Worker(self.link_path(id), id, f"r{self.runs}")
        await self.workers[id].open()
        self.units[id] = UnitStatus(UnitState.ACTIVE, run=f"r{self.runs}", main_pid=OWN_PID)

    async def stop(self, id: InstanceId) -> None:
        self.asked.append(f"stop {id}")
        await self.end(id)
        del self.units[id]

    async def end(self, id: InstanceId) -> None:
        await self.workers.pop(id).server.close()

    async def restart(self, id: InstanceId) -> None:
        self.asked.append(f"restart {id}")
        await self.start(id)

    async def reset_failed(self, id: InstanceId) -> None:
        self.asked.append(f"reset {id}")

    def link_path(self, id: InstanceId) -> Path:
        return self.root / id / "link.sock"

    def log_path(self, id: InstanceId) -> Path:
        return self.root / id / "worker.log"

    async def close(self, *, leave_workers: bool) -> None: ...


class House:
    def __init__(self, root: Path, size: int) -> None:
        self.size, self.opened = size, 0
        self.host = PackHost(root)
        self.facts: dict[InstanceId, Facts] = {}
        self.woken: list[InstanceId] = []
        self.packs = self.make()

    def make(self) -> Packs:
        return Packs(
            open_host=self._open,
            size=lambda: self.size,
            facts=self.facts,
            wake=self.woken.append,
            link_stats=LinkStats(),
        )

    async def _open(self) -> Any:
        self.opened += 1
        return self.host

    def add(self, id: str, engine: str = "baileys") -> Facts:
        instance = Instance(InstanceId(id), engine, True, {})
        found = self.facts[instance.id] = Facts(instance, SessionRecord())
        return found

    async def start(self, facts: Facts) -> None:
        await self.packs.place(facts)
        await self.packs.start(facts)

    @property
    def worker(self) -> Worker:
        return self.host.workers[PACK]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path, 2)
    yield made
    await made.packs.close(leave_workers=True)
    for id in list(made.host.workers):
        await made.host.end(id)


async def until(probe: Any, within: float = 10.0) -> None:
    deadline = asyncio.get_running_loop().time() + within
    while not probe():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)


async def test_a_started_session_is_a_member_whose_status_its_pack_tells(house: House) -> None:
    facts = house.add("a")
    await house.start(facts)
    status = await house.packs.status(facts.id)
    assert (status.state, status.run, status.main_pid) == (UnitState.ACTIVE, "run of a", OWN_PID)
    assert house.packs.link_path(facts.id) == house.host.root / PACK / "members/a/link.sock"
    assert house.packs.list() == {facts.id: status}
    # It began again by itself.
    house.worker.members["a"] |= {"run": "run 2", "restarts": 1}
    house.worker.server.happened(PACK, Happening("members"))
    await until(lambda: house.packs.all[PACK].stale)
    status = await house.packs.status(facts.id)
    assert (status.run, status.restarts) == ("run 2", 1)
    assert facts.id in house.woken
    await house.packs.stop(facts.id)
    assert (await house.packs.status(facts.id)).state is UnitState.INACTIVE


async def test_the_next_agent_finds_the_sessions_of_each_pack(house: House) -> None:
    all_facts = [house.add(id) for id in ("a", "b", "c")]
    for facts in all_facts:
        await house.start(facts)
    before = [facts.pack for facts in all_facts]
    assert before == ["baileys-1", "baileys-1", "baileys-2"]
    await house.packs.close(leave_workers=True)
    for facts in all_facts:
        facts.pack = ""
    house.packs = house.make()
    await house.packs.take_over(house.host.root)
    assert [facts.pack for facts in all_facts] == before
    assert (await house.packs.status(InstanceId("c"))).runs
    # A changed size holds from a session's next start.
    house.size = 1
    await house.packs.place(all_facts[0])
    assert all_facts[0].pack == "" and "release a" in house.worker.asked
    assert (await house.packs.status(InstanceId("b"))).runs


async def test_a_pack_that_cannot_start_is_the_sessions_failure_to_start(house: House) -> None:
    house.host.refuses = True
    facts = house.add("a")
    await house.packs.place(facts)
    with pytest.raises(HostError, match="no such template"):
        await house.packs.start(facts)
    assert not (await house.packs.status(facts.id)).runs
    house.host.refuses = False
    await house.packs.start(facts)
    assert (await house.packs.status(facts.id)).runs


async def test_members_of_a_pack_that_ended_have_failed_and_those_of_one_that_begins_again_begin(
    house: House,
) -> None:
    facts = house.add("a")
    await house.start(facts)
    unit = house.host.units[PACK]
    house.host.units[PACK] = replace(unit, state=UnitState.ACTIVATING, run="", main_pid=0)
    await house.host.end(PACK)
    await until(lambda: house.packs.all[PACK].link is None)
    assert (await house.packs.status(facts.id)).state is UnitState.ACTIVATING
    house.host.units[PACK] = replace(unit, state=UnitState.FAILED, result="signal", main_pid=0)
    status = await house.packs.status(facts.id)
    assert (status.state, status.result) == (UnitState.FAILED, "signal")
    await house.start(facts)
    assert house.host.asked[1:] == ["reset baileys-1", "start baileys-1"]
    assert (await house.packs.status(facts.id)).runs


async def test_a_session_that_was_deleted_meanwhile_is_let_go(house: House) -> None:
    for id in ("a", "b"):
        await house.start(house.add(id))
    del house.facts[InstanceId("a")]
    await house.packs._look()
    assert house.worker.asked[-1] == "release a"
    assert set(house.packs.list()) == set(house.worker.members) == {"b"}
    await house.packs.stop(InstanceId("b"))
    del house.facts[InstanceId("b")]
    await house.packs._look()
    assert house.worker.members == {}, "one at rest is forgotten, too"
