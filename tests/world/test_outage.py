"""An outage of N seconds costs N and a few more, for one session as for many, and no login."""

import asyncio
import json
import sqlite3
from contextlib import closing

import pytest

from agent.core.model import ConnectionStatus
from agent.engines.sandbox.engine import SandboxEngine
from agent.engines.sandbox.rules import read_settings
from tests.waiting import connected

OUTAGE = 60.0
BACK_WITHIN = 10.0
"""Seconds from the network's return until the last of them is connected."""


def now() -> float:
    return asyncio.get_running_loop().time()


async def lose_the_network(agent, ids, seconds):
    """When it will be back."""
    await asyncio.gather(*(agent.fault(id, "drop", seconds) for id in ids))
    return now() + seconds


async def all_connected(agent, ids):
    shown = await agent.do("GET", "/api/instances?limit=500")
    up = {one["id"] for one in shown["instances"] if one["connection_status"] == "CONNECTED"}
    return up >= set(ids)


async def tries(agent, id):
    """Kinds of acts with a login that the agent began since it saw the connection lost."""
    story = await agent.story(id)
    losses = (at for at, (_, said) in enumerate(story) if said.startswith("CONNECTED → "))
    lost = next(losses, len(story))
    begun = [said.split(":")[0] for kind, said in story[lost:] if kind in ("action", "repair")]
    return [kind for kind in begun if kind in ("start", "connect", "restart", "reconnect")]


@pytest.mark.parametrize("count", [1, 2])
async def test_a4_a_short_outage_costs_seconds_and_opens_no_circuit(agent, eventually, count):
    ids = [f"s{number}" for number in range(count)]
    await connected(agent, eventually, *ids)
    back = await lose_the_network(agent, ids, OUTAGE)

    async def says_so():
        shown = await agent.show(ids[0])
        return shown["reason"], shown["connection_status"], shown["circuit"]

    await eventually(says_so, ("unreachable", "RECONNECTING", "closed"), within=15)
    shown = await agent.show(ids[0])
    assert "cannot reach the sandbox's network" in shown["sentence"]
    assert shown["attempts"] == 0, "what is not reached costs no attempt"
    with closing(sqlite3.connect(agent.state / "agent.db")) as db:
        kept = [json.loads(row[0]) for row in db.execute("select record from sessions")]
    assert {(its["reason"], its["breaker"]["failures"]) for its in kept} == {("unreachable", 0)}
    await eventually(lambda: all_connected(agent, ids), within=OUTAGE + BACK_WITHIN)
    assert now() <= back + BACK_WITHIN
    for id in ids:
        assert len(await tries(agent, id)) <= 2
        assert (await agent.show(id))["circuit"] == "closed"


async def test_sixty_sessions_are_back_within_the_budget_of_logins(agent, eventually):
    ids = [f"s{number}" for number in range(60)]
    await connected(agent, eventually, *ids)
    back = await lose_the_network(agent, ids, OUTAGE)
    await asyncio.sleep(OUTAGE - 3)
    begun = sum(map(len, [await tries(agent, id) for id in ids]))
    assert begun <= 10, f"{begun} tries while the network was away"
    await eventually(lambda: all_connected(agent, ids))
    budget = (60 - 30) * 0.1
    late = now() - back
    assert late <= BACK_WITHIN + budget, f"back {late:.1f} s after the network"
    for id in ids:
        assert len(await tries(agent, id)) <= 2


class ReconnectingEngine(SandboxEngine):
    """It connects again by itself, as a page of WhatsApp Web does."""

    async def lose(self, reason, until_wall=None):
        await self.hang_up()
        self._tell(ConnectionStatus.RECONNECTING, reason)


async def test_a_session_that_reconnects_by_itself_says_what_it_cannot_reach(agent, eventually):
    agent.machine.open_engine = lambda folder, settings, reporter: ReconnectingEngine(
        folder, read_settings(settings), reporter
    )
    await connected(agent, eventually, "a")
    await agent.fault("a", "drop")  # the agent's first look finds the network there
    await eventually(lambda: agent.status("a"), "RECONNECTING")
    await asyncio.sleep(5)
    await lose_the_network(agent, ["a"], 600)

    async def reason():
        return (await agent.show("a"))["reason"]

    await eventually(reason, "unreachable", within=30)
