"""A session whose copy could not follow waits for its machine, or for an operator."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.fleet.copies.take import LIMITS
from tests.conftest import Eventually
from tests.fleet.agents import FleetAgent, FleetOfAgents, fleet_of_agents
from tests.fleet.sites import SHOP
from tests.fleet.test_owners import owned_by, waits

LACKING = "SELECT session FROM wa_agent.copy WHERE lacking_since IS NOT NULL"
WHY = "its stored copy lacked changes"


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[FleetOfAgents]:
    env = {"WA_AGENT_FLEET__OLDEST_COPY": "2"}
    async with fleet_of_agents(["a", "b"], tmp_path, env=env) as fleet:
        yield fleet


def session_of(agent: FleetAgent, id: str) -> Path:
    return agent.state / "sessions" / id / "session"


async def lost_with_a_lacking_copy(fleet: FleetOfAgents, eventually: Eventually) -> None:
    """a dies with two sessions; one of them has more files than are ever copied."""
    a, b = fleet["a"], fleet["b"]
    await fleet.create("large", "small", on="a")
    await eventually(lambda: fleet.connected(["large", "small"]), within=30)
    await eventually(lambda: fleet.copied(["large", "small"]), within=30)
    await eventually(fleet.know_each_other, within=30)
    for number in range(LIMITS.files + 3):
        (session_of(a, "large") / f"more-{number}").touch()
    await eventually(lambda: fleet.rows(LACKING), [("large",)], within=60)
    assert await fleet.copied(["large"]), "the old copy stays"
    await a.lose_power()
    await eventually(lambda: owned_by(fleet, "b", "small"), within=60)
    await eventually(lambda: waits(b, "large", WHY), within=30)
    await eventually(lambda: fleet.connected(["small"]), within=30)
    assert WHY in (await b.do("GET", "/api/instance/large/fleet"))["waits"]


async def test_the_newer_folder_of_a_session_that_was_not_copied_wins_when_its_machine_is_back(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    await lost_with_a_lacking_copy(fleet, eventually)
    assert await owned_by(fleet, "a", "large")
    await fleet["a"].boot()
    await eventually(lambda: fleet.connected(["large", "small"]), within=60)
    assert await owned_by(fleet, "a", "large")
    assert (session_of(fleet["a"], "large") / f"more-{LIMITS.files}").exists()
    # It could be copied again: then it moves as any other one.
    for more in session_of(fleet["a"], "large").glob("more-*"):
        more.unlink()
    await eventually(lambda: fleet.rows(LACKING), [], within=60)
    await fleet["a"].lose_power()
    await eventually(lambda: owned_by(fleet, "b", "large"), within=60)
    await eventually(lambda: fleet.connected(["large"]), within=30)


async def test_a_word_that_arrives_late_says_nothing_of_a_later_copy(site: Any) -> None:
    a = await site("a")
    await a.add()
    me, copies = a.member, a.coordinator
    assert await copies.store_copy(me, SHOP, 0, b"one", 1)
    await copies.copies_lack(me, {SHOP: 1})
    assert SHOP in await copies.lacking()
    assert await copies.movable(me.id) == []
    assert await copies.store_copy(me, SHOP, 0, b"two", 2)
    await copies.copies_lack(me, {SHOP: 1})
    assert await copies.lacking() == {}
    assert [it.id for it in await copies.movable(me.id)] == [SHOP]
    await copies.copies_lack(me, {SHOP: 2})
    assert await copies.store_change(me, SHOP, 0, b"more", number=9, after=1) is None
    assert SHOP in await copies.lacking(), "nothing was stored"
    assert await copies.store_change(me, SHOP, 0, b"more", number=3, after=2)
    assert await copies.lacking() == {}


async def test_an_operator_accepts_the_old_copy_of_a_session_of_a_lost_machine(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    a, b, path = fleet["a"], fleet["b"], "/api/instance/{}/accept-copy"
    await lost_with_a_lacking_copy(fleet, eventually)
    status, said = await b.answer("POST", path.format("small"), {"confirm": "small"})
    assert (status, said["error"]) == (409, "machine_alive")
    await b.do("POST", path.format("large"), {"confirm": "large"})
    await eventually(lambda: owned_by(fleet, "b", "large"), within=60)
    await eventually(lambda: fleet.connected(["large", "small"]), within=30)
    await a.boot()
    trash = a.state / "sessions" / ".trash"
    await eventually(lambda: any(trash.glob("large.*/session/more-7")), within=60)
    assert await owned_by(fleet, "b", "large")
