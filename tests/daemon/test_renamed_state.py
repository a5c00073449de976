"""The state folder is moved away under its running agent, and put back."""

import json
import time

from tests.daemon.conftest import SETTINGS
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


async def test_a_state_folder_that_is_renamed_while_no_agent_runs_is_served_by_new_workers(
    make_agent, eventually
):
    """Those that run keep and read by the old path: what they had kept is not lost."""
    agent = make_agent()
    await agent.start()
    await agent.create("a", messages_per_minute=0)
    await eventually(lambda: agent.status("a"), "CONNECTED")
    said = {"contact": "5511999990000", "text": "hello", "count": 5}
    await agent.do("POST", "/api/instance/a/sandbox/say", said)
    kept = await eventually(lambda: read(agent), ["message"] * 5)
    pid = await agent.pid("a")
    await agent.kill()
    assert alive(pid)
    moved = make_agent(name="elsewhere")
    agent.state.rename(moved.state)
    await moved.start()
    await eventually(lambda: read(moved), kept)
    await eventually(lambda: moved.status("a"), "CONNECTED", within=60)
    assert not alive(pid)
    assert not agent.state.exists()
    await moved.do("POST", "/api/instance/a/sandbox/say", said)
    await eventually(lambda: read(moved), ["message"] * 10)


async def read(agent) -> list[str]:
    """The kinds of all records."""
    status, page = await agent.ask("GET", "/api/instance/a/messages?after=0")
    return [record["kind"] for record in page["records"]] if status == 200 else [page["error"]]
