"""The faults of a working day: each ends where it should, by itself."""

import asyncio
import json

from tests.waiting import connected
from tests.world.logins import Logins, counted


def instance_file(agent):
    return json.loads((agent.state / "sessions" / "a" / "instance.json").read_text())


async def test_after_a_ban_no_worker_is_left_that_could_log_in(agent, eventually):
    await connected(agent, eventually, "a")
    await agent.fault("a", "ban")
    await eventually(lambda: agent.status("a"), "AUTH_FAILURE")
    await eventually(agent.unit_state, "inactive")
    await eventually(lambda: instance_file(agent)["ended"], "banned")
    # Whatever starts it now (its host after a crash, the boot), a login would succeed.
    await agent.do("POST", "/api/instance/a/sandbox/fault", {"fault": "clear"})
    await agent.kill()
    as_before = instance_file(agent)
    del as_before["ended"]  # as an agent of an earlier version left it
    (agent.state / "sessions" / "a" / "instance.json").write_text(json.dumps(as_before))
    await agent.start()
    await agent.do("POST", "/api/health/check")
    assert instance_file(agent)["ended"] == "banned"
    shown = await agent.show("a")
    assert (shown["unit"]["state"], shown["reason"]) == ("inactive", "banned")
    await agent.do("POST", "/api/instance/a/start")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    await eventually(lambda: instance_file(agent)["ended"], "")


async def test_no_run_of_its_host_logs_in_before_the_end_of_a_ban(agent, eventually):
    await connected(agent, eventually, "a")
    with counted(logins := Logins()):
        await agent.fault("a", "temp-ban", 900)
        await eventually(agent.unit_state, "inactive")
        await agent.kill()
        agent.machine.worker("a").live()  # as at the boot of the machine
        await asyncio.sleep(10)
        await agent.kill_worker("a")
        await agent.start()
        said = await agent.do("POST", "/api/instance/a/ensure-healthy", {})
        assert (said["ending"], "it waits until 20" in said["sentence"]) == ("needs_person", True)
        for order in ("disable", "enable"):
            await agent.do("POST", f"/api/instance/a/{order}")
            await asyncio.sleep(10)
        gone = await agent.do("DELETE", "/api/instance/a")
        await agent.do("POST", f"/api/trash/{gone['trash']}/restore", {})
        await asyncio.sleep(10)
        assert logins.count == 0
        await eventually(lambda: agent.status("a"), "CONNECTED", within=910)
        assert logins.count == 1


async def test_faults_that_a_starting_worker_has_read_are_ended_in_it(agent, eventually):
    await connected(agent, eventually, "a")
    await agent.fault("a", "drop", 3600)
    before = await agent.run_of("a")
    await agent.kill_worker("a")
    while agent.machine.worker("a").status.run == before:  # noqa: ASYNC110 - no event tells it
        await asyncio.sleep(0.001)
    await agent.fault("a", "clear")
    await agent.do("POST", "/force-reconnection/a")
    await eventually(lambda: agent.status("a"), "CONNECTED", within=60)
