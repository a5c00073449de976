"""Real agents, killed and started again on a database whose bytes were changed in between."""

import os
import random

from tests.store.test_changed_bytes import KINDS

STARTS = int(os.environ.get("WA_CHANGED_BYTES_STARTS", "24"))
IDS = ("a", "b", "c")


def change_one(rng, state):
    """Change the database, or its log, which holds most of it after a kill."""
    database, log = state / "agent.db", state / "agent.db-wal"
    part = log if log.exists() and log.stat().st_size and rng.random() < 0.5 else database
    content = bytearray(part.read_bytes())
    how = rng.choice(KINDS)
    how(rng, content)
    part.write_bytes(content)
    return f"{how.__name__} of {part.name}"


async def test_an_agent_starts_with_all_instances_whatever_became_of_its_database(
    agent, eventually
):
    for id in IDS:
        await agent.create(id)
        await eventually(lambda id=id: agent.status(id), "CONNECTED")
    await agent.do("POST", "/api/instance/c/disable")
    pids = [await agent.pid(id) for id in ("a", "b")]
    rng, repaired = random.Random(7), 0
    for number in range(STARTS):
        await (agent.stop() if number % 8 == 7 else agent.kill())
        done = change_one(rng, agent.state)
        await agent.start()
        for id in ("a", "b"):
            await eventually(lambda id=id: agent.status(id), "CONNECTED", within=20)
        shown = [await agent.show(id) for id in IDS]
        assert [one["enabled"] for one in shown] == [True, True, False], (number, done)
        if number < 7:
            assert [await agent.pid(id) for id in ("a", "b")] == pids, "adopted, never restarted"
        found = await agent.do("GET", "/api/events?limit=500&kind=store_repaired")
        repaired += bool(found["events"])
    log = agent.log.read_text()
    assert "the database was damaged" in log
    assert repaired, "and the history says it too"
