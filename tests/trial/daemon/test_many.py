"""Two hundred sessions on this machine: started, scraped, adopted, stopped."""

import asyncio

import pytest

from tests.waiting import alive

MANY = 200

SETTINGS = f"""\
[start]
stagger = 0
login_every = 0
parallel = {MANY}

[memory]
total = 0
"""


@pytest.mark.slow
async def test_two_hundred_instances_start_are_scraped_adopted_and_stopped(make_agent, eventually):
    agent = make_agent(base="[agent]\nhost = 'process'\n" + SETTINGS)
    await agent.start()
    await asyncio.gather(*(agent.create(f"i{number}") for number in range(MANY)))

    async def connected():
        return (await agent.do("GET", "/api/instances?status=CONNECTED&limit=1"))["total"]

    await eventually(connected, MANY, within=200)
    text = await agent.do("GET", "/metrics")
    assert text.count("\nwa_session_info{") == MANY
    assert text.count("wa_session_status{") >= MANY
    pids = agent.worker_pids()
    assert len(set(pids)) == MANY

    await agent.kill()
    await agent.start()
    await eventually(connected, MANY, within=120)
    assert set(agent.worker_pids()) == set(pids), "a worker was replaced, not adopted"

    assert await agent.stop(within=120) == 0
    assert not any(alive(pid) for pid in pids)
    assert "could not" not in agent.log.read_text()
