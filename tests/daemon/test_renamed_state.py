"""The state folder is moved away under its running agent, and put back."""

import json
import sys
import time

from tests.daemon.conftest import PATIENT, SETTINGS
from tests.engines.program.conftest import BOT
from tests.waiting import alive


async def test_a_state_folder_that_is_moved_away_costs_no_worker_and_is_not_made_again(
    make_agent, eventually
):
    agent = make_agent(base=SETTINGS.replace("watchdog = 10", "watchdog = 2", 1))
    await agent.start()
    for id in ("a", "b"):
        await agent.create(id)
    for id in ("a", "b"):
        await eventually(lambda id=id: agent.status(id), "CONNECTED")
    pids = [await agent.pid(id) for id in ("a", "b")]
    state, agent.state = agent.state, agent.state.with_name("away")
    state.rename(agent.state)  # its socket went along
    moved = time.monotonic()
    for id in ("a", "b"):
        await agent.do("PUT", f"/api/instance/{id}/passkey", {"needed": True})
    status, answer = await agent.ask("POST", "/api/instance", {"id": "c", "engine": "sandbox"})
    assert (status, str(state) in answer["message"]) == (507, True), answer
    # Longer than the watchdog waits, and than many passes take.
    await eventually(lambda: time.monotonic() - moved > 8)
    said = agent.log.read_text()
    assert said.count("cannot write its identity file") == 1, "one cause"
    assert said.count(f"{state}/run/notify was moved away or replaced") == 1
    assert "sent no watchdog ping" not in said
    assert [await agent.pid(id) for id in ("a", "b")] == pids
    assert all(alive(pid) for pid in pids)
    assert not state.exists()

    agent.state.rename(state)
    agent.state = state
    for id in ("a", "b"):
        file = state / "sessions" / id / "instance.json"
        await eventually(lambda file=file: json.loads(file.read_text())["needs_passkey"])
        await eventually(lambda id=id: agent.status(id), "CONNECTED")
    assert [await agent.pid(id) for id in ("a", "b")] == pids
    assert agent.log.read_text().count("cannot write its identity file") == 1


async def test_no_worker_is_started_and_no_reserve_laid_in_at_the_old_path(make_agent, eventually):
    agent = make_agent()
    await agent.start()
    await agent.create("a")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    state, agent.state = agent.state, agent.state.with_name("away")
    state.rename(agent.state)
    await agent.do("POST", "/api/instance/a/restart")
    await eventually(lambda: f"cannot prepare {state}/run/a" in agent.log.read_text())
    assert not state.exists()
    state.mkdir()  # as the mount point that is left
    for number in range(120):  # commits: after a hundred the reserve is looked at again
        await agent.do("PUT", "/api/instance/a/passkey", {"needed": number % 2 == 0})
    assert list(state.iterdir()) == []
    state.rmdir()
    agent.state.rename(state)
    agent.state = state
    await eventually(lambda: agent.status("a"), "CONNECTED", within=60)
    assert (state / "run/a/worker.log").exists()


HOLDS = f"""
[[program]]
name = "holds"
command = ["{sys.executable}", "{BOT}", "holds"]
stop = 1.0
"""


async def test_a_state_folder_that_is_renamed_while_no_agent_runs_is_served_by_new_workers(
    make_agent, eventually
):
    """Those that run look for messages and files by the old path, and would keep none."""
    agent, moved = make_agent(HOLDS), make_agent(HOLDS, name="elsewhere")
    await agent.start(PATIENT)
    body = {"id": "a", "engine": "program", "settings": {"program": "holds"}}
    await agent.do("POST", "/api/instance", body)
    await eventually(lambda: agent.status("a"), "CONNECTED", within=60)
    pid = await agent.pid("a")
    await agent.kill()
    assert alive(pid)
    agent.state.rename(moved.state)
    await moved.start(PATIENT)
    await eventually(lambda: not alive(pid))
    await eventually(lambda: moved.status("a"), "CONNECTED", within=60)
    assert f"process {pid} looks for the session a in {agent.state}" in moved.log.read_text()
    again = await moved.pid("a")
    await moved.kill()
    await moved.start(PATIENT)
    await eventually(lambda: moved.status("a"), "CONNECTED", within=60)
    assert (await moved.pid("a"), agent.state.exists()) == (again, False)
