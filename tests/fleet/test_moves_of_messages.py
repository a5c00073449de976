"""A session moves between real agents while messages come and go: none is lost, none is doubled."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import Eventually
from tests.fleet.agents import LASTING, FleetOfAgents, fleet_of_agents
from tests.fleet.test_kills import ended, killed_at
from tests.fleet.test_owners import owned_by
from tests.fleet.traffic import Traffic

ID = "x"


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[FleetOfAgents]:
    async with fleet_of_agents(["a", "b"], tmp_path, env=LASTING) as fleet:
        yield fleet


async def begun(fleet: FleetOfAgents, eventually: Eventually) -> Traffic:
    await fleet.create(ID, on="a")
    await eventually(lambda: fleet.connected([ID]), within=60)
    await eventually(fleet.know_each_other, within=60)
    return Traffic(fleet, ID)


async def nothing_is_lost(traffic: Traffic, eventually: Eventually) -> None:
    await eventually(traffic.lost_in, [], within=60)
    await eventually(traffic.lost_out, [], within=60)
    assert traffic.doubled() == {}
    assert traffic.gaps() == []


async def test_a_session_that_moves_to_and_fro_loses_and_doubles_no_message(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    traffic = await begun(fleet, eventually)
    async with traffic.flowing():
        for target in ("b", "a", "b"):
            await more_flowed(traffic, 8, eventually)
            await traffic.ask("POST", f"/api/instance/{ID}/move", {"to": target})
            await eventually(lambda target=target: owned_by(fleet, target, ID), within=60)
            await eventually(lambda target=target: fleet[target].status(ID), "CONNECTED", within=60)
    await nothing_is_lost(traffic, eventually)


async def more_flowed(traffic: Traffic, count: int, eventually: Eventually) -> None:
    said, sent = len(traffic.said) + count, len(traffic.sent) + count
    await eventually(
        lambda: len(traffic.said) >= said and len(traffic.sent) >= sent, True, within=60
    )


AT_SOURCE = ("move_stopped", "move_copied", "move_handed_over", "fleet_retired")
AT_TARGET = ("baggage_unpacked", "fleet_arrived", "outbox_brought")
OTHER = {"a": "b", "b": "a"}


async def moved_with_kill(
    traffic: Traffic, source: str, point: str, killed: str, eventually: Eventually
) -> None:
    """A move from the source, in which this machine's agent is killed at this point."""
    fleet, target = traffic.fleet, OTHER[source]
    await killed_at(fleet[killed], point)
    await eventually(fleet.know_each_other, within=60)
    await eventually(lambda: fleet[source].status(ID), "CONNECTED", within=60)
    await traffic.send()
    await traffic.ask("POST", f"/api/instance/{ID}/move", {"to": target})
    await ended(fleet[killed])
    await fleet[killed].boot()
    await eventually(lambda: owned_by(fleet, target, ID), within=60)
    await eventually(lambda: fleet[target].status(ID), "CONNECTED", within=60)


async def test_moves_under_kills_of_the_source_lose_and_double_no_message(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    traffic, source = await begun(fleet, eventually), "a"
    async with traffic.flowing(pause=0.2):
        for point in (*AT_SOURCE, "outbox_handed_over"):
            await moved_with_kill(traffic, source, point, source, eventually)
            source = OTHER[source]
    await nothing_is_lost(traffic, eventually)


async def test_moves_under_kills_of_the_target_lose_and_double_no_message(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    traffic, source = await begun(fleet, eventually), "a"
    async with traffic.flowing(pause=0.2):
        for point in AT_TARGET:
            await moved_with_kill(traffic, source, point, OTHER[source], eventually)
            source = OTHER[source]
    await nothing_is_lost(traffic, eventually)


async def test_a_lost_machine_loses_no_more_than_its_lag_and_sends_nothing_twice_when_it_is_back(
    tmp_path: Path, eventually: Eventually
) -> None:
    async with fleet_of_agents(["a", "b"], tmp_path) as fleet:
        traffic = await begun(fleet, eventually)
        a, b = fleet["a"], fleet["b"]
        await eventually(lambda: fleet.copied([ID]), within=60)
        for _ in range(20):
            await traffic.say()
        await eventually(lambda: has_read_all(traffic), within=60)
        await traffic.poll()  # who asks for what follows has what came before
        for _ in range(20):
            await traffic.say()
        await eventually(lambda: waiting(traffic), 20, within=60)
        await eventually(lambda: all_stored(traffic), within=60)
        for _ in range(3):
            await traffic.say()
        await a.fault(ID, "drop", 3600)
        await eventually(lambda: a.status(ID), "RECONNECTING", within=60)
        for _ in range(3):
            await traffic.send()
        await a.lose_power()
        await eventually(lambda: owned_by(fleet, "b", ID), within=60)
        await eventually(lambda: b.status(ID), "RECONNECTING", within=60)
        await b.clear(ID)
        await eventually(lambda: b.status(ID), "CONNECTED", within=60)
        await traffic.say()
        await eventually(lambda: gap_and_newest(traffic), within=60)
        lost = await traffic.lost_in()
        assert set(lost) <= set(traffic.said[40:43]), "what came within the lag"
        assert [it.get("missing") for it in traffic.gaps()] == [None]
        await a.boot()
        await eventually(traffic.lost_out, [], within=60)
        assert traffic.doubled() == {}


async def has_read_all(traffic: Traffic) -> bool:
    await traffic.poll()
    return len(traffic.texts()) == len(traffic.said)


async def waiting(traffic: Traffic) -> int:
    """Records that its reader has not got; without `wait`, who asks is no reader."""
    path = f"/api/instance/{ID}/messages?after={traffic.cursor}"
    page = await traffic.ask("GET", path)
    return sum(it["kind"] == "message" and not it["from_me"] for it in page["records"])


async def all_stored(traffic: Traffic) -> bool:
    """What its reader has not got is in the fleet's database; the lag that a machine tells is that
    of its last look."""
    return set(traffic.said) - set(traffic.texts()) <= await traffic.stored()


async def gap_and_newest(traffic: Traffic) -> bool:
    await traffic.poll()
    return bool(traffic.gaps()) and traffic.said[-1] in traffic.texts()
