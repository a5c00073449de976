"""The agent killed at every point of a repair: the next one ends it, and no session is lost."""

import json

import aiohttp
import pytest

PATIENT = {"WA_AGENT_WORKER__WATCHDOG": "10"}
SETTINGS = """
[recovery]
tries = 2
first_delay = 0.1
rounds = 1
settle = 1
settle_start = 0.3
round_pause = 1

[phases]
sync = 0.8
"""


@pytest.fixture
def start_paired(make_agent, eventually):
    """An agent that will die at a point, with a paired instance and its file's content."""

    async def start(point):
        agent = make_agent(SETTINGS)
        await agent.start({**PATIENT, "WA_FAILPOINT": point})
        await agent.create("a")
        await eventually(lambda: agent.status("a"), "CONNECTED")
        await agent.do("PATCH", "/api/instance/a", {"settings": {"scan": "manual"}})
        return agent, json.loads(session_file(agent).read_text())

    return start


async def dies(agent, doing):
    """The agent is killed in the middle of what was asked; its workers live on."""
    with pytest.raises((aiohttp.ClientError, OSError)):
        await doing
    assert await agent.process.wait() == -9


async def over(agent):
    return [one for kind, one in await agent.story("a") if kind == "repair_over"]


def session_file(agent):
    return agent.state / "sessions" / "a" / "session" / "sandbox.json"


def kept_devices(agent):
    """The devices of all whole session files, wherever they are now."""
    found = []
    for path in (agent.state / "sessions").rglob("sandbox.json"):
        try:
            found.append(json.loads(path.read_text())["device"])
        except ValueError:
            continue  # the one that was damaged on purpose
    return found


CLEANUP = [
    "repair_begun:kill:1",
    "repair_done:kill:1",
    "repair_begun:kill:2",
    "repair_stopped:kill",
    "cleanup_reset:kill",
    "retire_manifest:kill",
    "retire_moved:kill",
    "set_aside:kill",
    "repair_done:kill:2",
]


@pytest.mark.parametrize("point", CLEANUP)
async def test_a_cleanup_cut_short_is_ended_by_the_next_life(start_paired, eventually, point):
    agent, before = await start_paired(point)
    await dies(agent, agent.do("POST", "/api/instance/a/cleanup", {"confirm": True}))
    assert before["device"] in kept_devices(agent)
    await agent.start(PATIENT)
    await eventually(lambda: over(agent), ["cleaned: it waits for a scan of its QR code"])
    shown = await agent.show("a")
    assert (shown["connection_status"], shown["paired"]) == ("QR_REQUIRED", False)
    assert before["device"] in kept_devices(agent), "the session that was retired is not lost"

    (retired,) = [
        one["name"]
        for one in (await agent.do("GET", "/api/trash"))["trash"]
        if device_of(agent.state / "sessions" / ".trash" / one["name"]) == before["device"]
    ]
    if not point.startswith("retire"):
        return
    await agent.do("DELETE", "/api/instance/a")
    await agent.do("POST", f"/api/trash/{retired}/restore")
    await agent.do("POST", "/api/instance/a/enable")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert json.loads(session_file(agent).read_text())["device"] == before["device"]


def device_of(folder):
    path = folder / "session" / "sandbox.json"
    return json.loads(path.read_text())["device"] if path.exists() else None


RESTORE = [
    "snapshot_copied:kill:2",
    "repair_stopped:kill",
    "staging_way_free:kill",
]


@pytest.mark.parametrize("point", RESTORE)
async def test_a_restore_cut_short_is_ended_by_the_next_life(start_paired, eventually, point):
    agent, before = await start_paired(point)
    await agent.do("POST", "/api/instance/a/snapshots")
    await agent.fault("a", "corrupt-files")
    await eventually(lambda: agent.process.returncode, -9)
    assert before["device"] in kept_devices(agent)
    await agent.start(PATIENT)
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert "recovered: connected" in await over(agent)
    assert json.loads(session_file(agent).read_text())["device"] == before["device"]
    assert (await agent.show("a"))["paired"] is True


@pytest.mark.parametrize("point", ["repair_begun:kill", "repair_done:kill:2"])
async def test_a_gentle_repair_cut_short_goes_on(start_paired, eventually, point):
    agent, before = await start_paired(point)
    await agent.fault("a", "stuck-loading")
    await eventually(lambda: agent.process.returncode, -9)
    await agent.start(PATIENT)
    await eventually(lambda: over(agent), ["recovered: connected"], within=15)
    assert json.loads(session_file(agent).read_text())["device"] == before["device"]
    begun = [one.split(":")[0] for kind, one in await agent.story("a") if kind == "repair"]
    assert begun[-1] == "restart"
    assert begun.count("reconnect") <= 3, "what was tried before the kill counts"
