"""An outage of N seconds costs N and a few more, for one session as for many, and no login."""

import asyncio
import time

import pytest

from tests.daemon.conftest import SETTINGS

OUTAGE = 10.0
BACK_WITHIN = 10.0
"""Seconds from the network's return until the last of them is connected."""
USUAL_DELAYS = SETTINGS.replace("[reconnect]\nbase = 0.2\njitter = 0\n", "")


async def lose_the_network(agent, ids, seconds):
    """Return when it will be back (wall clock)."""
    await asyncio.gather(*(agent.fault(id, "drop", seconds) for id in ids))
    return time.time() + seconds


async def connected_again(agent, ids):
    shown = await agent.do("GET", "/api/instances?limit=500")
    up = {one["id"] for one in shown["instances"] if one["connection_status"] == "CONNECTED"}
    return up >= set(ids)


async def tries(agent, id):
    """What the agent began since the connection was lost, and could log in."""
    story = await agent.story(id)
    lost = next(at for at, (_, said) in enumerate(story) if said.startswith("CONNECTED → "))
    begun = [said.split(":")[0] for kind, said in story[lost:] if kind in ("action", "repair")]
    return [kind for kind in begun if kind in ("start", "connect", "restart", "reconnect")]


@pytest.mark.parametrize("count", [1, 2])
async def test_a4_a_short_outage_costs_seconds_and_opens_no_circuit(make_agent, eventually, count):
    agent = make_agent(base=USUAL_DELAYS)
    await agent.start()
    ids = [f"s{number}" for number in range(count)]
    for id in ids:
        await agent.create(id)
        await eventually(lambda id=id: agent.status(id), "CONNECTED")
    back = await lose_the_network(agent, ids, OUTAGE)

    async def says_so():
        shown = await agent.show(ids[0])
        return shown["reason"], shown["connection_status"], shown["circuit"]

    await eventually(says_so, ("unreachable", "RECONNECTING", "closed"), within=8)
    shown = await agent.show(ids[0])
    assert "cannot reach the sandbox's network" in shown["sentence"]
    assert shown["attempts"] == 0, "what is not reached costs no attempt"
    await eventually(lambda: connected_again(agent, ids), within=OUTAGE + BACK_WITHIN + 20)
    late = time.time() - back
    assert 0 <= late <= BACK_WITHIN, f"back {late:.1f} s after its network"
    for id in ids:
        assert len(await tries(agent, id)) <= 2
        assert (await agent.show(id))["circuit"] == "closed"
