"""The processes that sessions share: begun with the first of them, kept, stopped after the last."""

from pathlib import Path

import pytest

from agent.core.model import (
    UNIT_ABSENT,
    Instance,
    InstanceId,
    SessionRecord,
    UnitState,
    UnitStatus,
)
from agent.engines.baileys.pack_client import read_place
from agent.errors import HostError
from agent.supervise.facts import Facts
from agent.supervise.turns import packs as packs_module
from agent.supervise.turns.packs import Packs

PACK = InstanceId("baileys-1")


class PackHost:
    """Starts nothing; says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.units: dict[InstanceId, UnitStatus] = {}
        self.refuses = False

    async def list(self):
        return self.units

    async def status(self, id):
        return self.units.get(id, UNIT_ABSENT)

    async def start(self, id):
        self.asked.append(f"start {id}")
        if self.refuses:
            raise HostError("no such template")
        self.units[id] = UnitStatus(UnitState.ACTIVE, run="r1")

    async def stop(self, id):
        self.asked.append(f"stop {id}")
        del self.units[id]

    async def reset_failed(self, id):
        self.asked.append(f"reset {id}")

    def link_path(self, id):
        return Path("/run/wa-pack") / id / "link.sock"


class House:
    def __init__(self, root: Path, size: int) -> None:
        self.root, self.size, self.opened = root, size, 0
        self.host = PackHost()
        self.facts: dict[InstanceId, Facts] = {}
        self.packs = Packs(
            open_host=self._open, size=lambda: self.size, session_root=root, facts=self.facts
        )

    async def _open(self):
        self.opened += 1
        return self.host

    def add(self, id: str, engine: str = "baileys") -> Facts:
        (self.root / id).mkdir()
        instance = Instance(InstanceId(id), engine, True, {})
        found = self.facts[instance.id] = Facts(instance, SessionRecord())
        return found

    def noted(self, id: str) -> str:
        place = read_place(self.root / id)
        return place.name if place is not None else ""


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path, 2)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The packs' clock, as its only item."""
    clock = [1000.0]
    monkeypatch.setattr(packs_module, "boot_now", lambda: clock[0])
    return clock


async def test_without_packs_nothing_is_opened_and_nothing_written(house: House):
    house.size = 1
    await house.packs.place(house.add("a"))
    await house.packs.place(house.add("b", "sandbox"))
    await house.packs._look()
    assert house.opened == 0
    assert not list(house.root.glob("*/pack.json"))


async def test_a_session_of_another_engine_has_none(house: House):
    await house.packs.place(house.add("b", "sandbox"))
    assert (house.opened, house.noted("b")) == (0, "")


async def test_the_next_agent_reads_which_pack_each_session_is_in(house: House):
    for id in ("a", "b", "c"):
        await house.packs.place(house.add(id))
    assert [house.noted(id) for id in "abc"] == ["baileys-1", "baileys-1", "baileys-2"]
    before = [facts.pack for facts in house.facts.values()]
    for facts in house.facts.values():
        facts.pack = ""
    house.packs.take_over()
    assert [facts.pack for facts in house.facts.values()] == before
    house.size = 1
    await house.packs.place(house.facts[InstanceId("a")])
    assert house.noted("a") == ""


async def test_a_pack_that_cannot_start_keeps_no_session_from_starting(
    house: House, now: list[float]
):
    house.host.refuses = True
    facts = house.add("a")
    await house.packs.place(facts)
    await house.packs.place(facts)
    assert house.host.asked == ["start baileys-1"], "the next try waits"
    assert house.noted("a") == "baileys-1"
    house.host.refuses = False
    house.host.units[PACK] = UnitStatus(UnitState.FAILED)
    now[0] += 5
    facts.unit = UnitStatus(UnitState.ACTIVE, run="r")
    await house.packs._look()
    assert house.host.asked[1:] == ["reset baileys-1", "start baileys-1"]


async def test_an_unused_pack_is_stopped_and_an_ended_one_started_again(
    house: House, now: list[float]
):
    facts = house.add("a")
    await house.packs.place(facts)
    facts.unit = UnitStatus(UnitState.ACTIVE, run="r")
    house.host.units.clear()
    await house.packs._look()
    assert house.host.asked == ["start baileys-1"] * 2
    facts.unit = UNIT_ABSENT
    now[0] += packs_module.UNUSED - 1
    await house.packs._look()
    assert PACK in house.host.units
    now[0] += 2
    await house.packs._look()
    assert house.host.asked[-1] == "stop baileys-1"
