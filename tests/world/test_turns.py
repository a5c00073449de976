"""Starts, reconnects and repairs in their turns, by the real agent: none holds up the others."""

import json
import time

from tests.waiting import connected

ONE_AT_A_TIME = "[start]\nparallel = 1\nlogins = 1\n"


async def start_into_a_sync_that_does_not_end(agent, eventually, id):
    await agent.do("POST", f"/api/instance/{id}/stop")
    await eventually(lambda: agent.unit_state(id), "inactive")
    (folder,) = agent.state.glob(f"sessions/{id}/session")
    stuck = {"stuck-loading": {"until_wall": time.time() + 3600, "arguments": {}}}
    (folder / "faults.json").write_text(json.dumps({"version": 1, "faults": stuck}))
    await agent.do("POST", f"/api/instance/{id}/start")
    await eventually(lambda: agent.status(id), "LOADING")


async def turns_before(agent, id):
    return (await agent.show(id))["turns_before"]


async def test_a_start_that_is_stuck_frees_its_turn(make_agent, eventually):
    agent = make_agent(ONE_AT_A_TIME + "[recovery]\nunpair = 'never'\n")
    await agent.start()
    await connected(agent, eventually, "a", "b")
    await start_into_a_sync_that_does_not_end(agent, eventually, "a")
    await eventually(lambda: agent.told("a", "repair_over"), within=7200)
    await agent.fault("b", "drop")

    async def reconnected():
        shown = await agent.show("b")
        return shown["reconnects_by_reason"] and shown["connection_status"] == "CONNECTED"

    await eventually(reconnected)


async def test_one_that_was_connected_does_not_wait_for_starts_in_bulk(make_agent, eventually):
    agent = make_agent("[start]\nlogins = 1\nlogin_every = 20\n")
    await agent.start()
    for id in "abcdef":
        await agent.create(id)
    await eventually(lambda: agent.status("a"), "CONNECTED")
    await agent.fault("a", "drop")

    async def dropped():
        return (await agent.show("a"))["reconnects_by_reason"]

    await eventually(dropped)
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert await turns_before(agent, "f") is not None, "it has not even had its turn"
