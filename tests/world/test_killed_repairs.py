"""The agent killed at every point of a repair: the next one ends it, and no session is lost."""

import asyncio
import contextlib
import json

import aiohttp
import pytest

from agent.engines.sandbox.rules import SessionFile, write_session
from agent.supervise import act
from tests.world.virtual import kill

SETTINGS = "[sessions]\nsnapshots = 2\n"


@pytest.fixture
def start_paired(make_agent, eventually):
    """An agent that will die at a point, with a paired instance and its file's content.

    Its first life paired and copied it, so that the second one passes nothing but the repair's
    points.
    """

    async def start(point, *, snapshot=True):
        agent = make_agent(SETTINGS)
        await agent.start()
        await agent.create("a")
        await eventually(lambda: agent.status("a"), "CONNECTED")
        await agent.do("PATCH", "/api/instance/a", {"settings": {"scan": "manual"}})
        for _ in range(2 if snapshot else 0):  # with a backup one too many
            await agent.do("POST", "/api/instance/a/snapshots")
        await agent.kill()
        await agent.start(point)
        await eventually(lambda: agent.status("a"), "CONNECTED")
        return agent, json.loads(session_file(agent).read_text())

    return start


async def dies(agent, doing):
    """The agent is killed in the middle of what was asked; its workers live on."""
    with contextlib.suppress(aiohttp.ClientError, OSError):
        await doing
    await agent.dead()


async def over(agent):
    return [one for kind, one in await agent.story("a") if kind == "repair_over"]


async def recovered(agent):
    return "recovered: connected" in await over(agent)


async def trash(agent):
    return [one["name"] for one in (await agent.do("GET", "/api/trash"))["trash"]]


def session_file(agent):
    return agent.state / "sessions" / "a" / "session" / "sandbox.json"


def device_of(folder):
    path = folder / "session" / "sandbox.json"
    return json.loads(path.read_text())["device"] if path.exists() else None


def kept_devices(agent):
    """The devices of all whole session files, wherever they are now."""
    found = []
    for path in (agent.state / "sessions").rglob("sandbox.json"):
        try:
            found.append(json.loads(path.read_text())["device"])
        except ValueError:
            continue  # the one that was damaged on purpose
    return found


CLEANUP_BEGUN = [
    "repair_begun:kill:1",
    "mid_prune:kill",
    "repair_done:kill:1",
    "repair_begun:kill:2",
    "repair_stopped:kill",
    # Of the identity, the backup's manifest, the identity again, the trash's manifest.
    *(f"after_tmp_write:kill:{count}" for count in (1, 2, 3, 4)),
    *(f"after_rename:kill:{count}" for count in (1, 2, 3, 4)),
    "cleanup_reset:kill",
    "retire_manifest:kill",
]
CLEANUP = [
    "after_tmp_write:kill:5",  # of the new identity
    "after_rename:kill:5",
    "retire_moved:kill",
    "set_aside:kill",
    "repair_done:kill:2",
]


@pytest.mark.parametrize("point", CLEANUP_BEGUN)
async def test_a_cleanup_that_had_not_ended_the_pairing_is_dropped(start_paired, eventually, point):
    """Before the next agent a person may have paired it again: nothing tells both apart."""
    agent, before = await start_paired(point)
    await dies(agent, agent.do("POST", "/api/instance/a/cleanup", {"confirm": True}))
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")
    await asyncio.sleep(600)
    assert (await agent.show("a"))["paired"] is True
    assert json.loads(session_file(agent).read_text())["device"] == before["device"]


async def test_a_new_pairing_is_not_ended_by_the_order_that_ended_the_old_one(
    start_paired, eventually, monkeypatch
):
    agent, before = await start_paired("mid_sweep:kill")
    begin = act.begin_run

    async def start_and_die(means, facts, *, again):
        await begin(means, facts, again=again)
        await asyncio.sleep(5)  # the phone scans the new code
        kill(agent._run)

    await agent.do("PATCH", "/api/instance/a", {"settings": {"scan": "auto"}})
    monkeypatch.setattr(act, "begin_run", start_and_die)
    await dies(agent, agent.do("POST", "/api/instance/a/cleanup", {"confirm": True}))
    monkeypatch.undo()
    new = json.loads(session_file(agent).read_text())
    assert new["paired"] and new["device"] != before["device"]
    await agent.start()
    await asyncio.sleep(600)
    assert await agent.status("a") == "CONNECTED"
    assert json.loads(session_file(agent).read_text())["device"] == new["device"]


@pytest.mark.parametrize("point", CLEANUP)
async def test_a_cleanup_cut_short_is_ended_by_the_next_life(start_paired, eventually, point):
    agent, before = await start_paired(point)
    await dies(agent, agent.do("POST", "/api/instance/a/cleanup", {"confirm": True}))
    assert before["device"] in kept_devices(agent)
    await agent.start()
    await eventually(lambda: over(agent), ["cleaned: it waits for a scan of its QR code"])
    shown = await agent.show("a")
    assert (shown["connection_status"], shown["paired"]) == ("QR_REQUIRED", False)
    assert before["device"] in kept_devices(agent), "the session that was retired is not lost"

    (retired,) = [
        name
        for name in await trash(agent)
        if device_of(agent.state / "sessions" / ".trash" / name) == before["device"]
    ]
    if not point.startswith("retire"):
        return
    await agent.do("DELETE", "/api/instance/a")
    await agent.do("POST", f"/api/trash/{retired}/restore")
    await agent.do("POST", "/api/instance/a/enable")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert json.loads(session_file(agent).read_text())["device"] == before["device"]


RESTORE = [
    "repair_begun:kill:1",
    "snapshot_begun:kill",
    "snapshot_copied:kill",
    "snapshot_manifest:kill",
    "snapshot_verified:kill",
    "snapshot_visible:kill",
    "repair_done:kill:1",
    "repair_begun:kill:2",
    "repair_stopped:kill",
    "restore_copied:kill",
    "staging_made:kill",
    "staging_ready:kill",
    "retire_manifest:kill",
    "retire_moved:kill",
    "staging_way_free:kill",
    "staging_in_place:kill",
    "repair_done:kill:2",
]


@pytest.mark.parametrize("point", RESTORE)
async def test_a_restore_cut_short_is_ended_by_the_next_life(start_paired, eventually, point):
    agent, before = await start_paired(point)
    await dies(agent, agent.fault("a", "corrupt-files"))
    assert before["device"] in kept_devices(agent)
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")
    await eventually(lambda: recovered(agent))
    assert json.loads(session_file(agent).read_text())["device"] == before["device"]
    assert (await agent.show("a"))["paired"] is True


# A worker that hangs is replaced at once.
RESTART = ["repair_begun:kill:1", "repair_done:kill:1"]


@pytest.mark.parametrize("point", RESTART)
async def test_a_restart_cut_short_goes_on(start_paired, eventually, point):
    agent, before = await start_paired(point)
    await dies(agent, agent.fault("a", "stuck-loading"))
    await agent.start()
    await eventually(lambda: over(agent), ["recovered: connected"])
    assert json.loads(session_file(agent).read_text())["device"] == before["device"]
    begun = [one.split(":")[0] for kind, one in await agent.story("a") if kind == "repair"]
    assert begun.count("restart") <= 2, "what was tried before the kill counts"
    assert set(begun) == {"restart"}


# Where the keys of many peers fail: the reconnect, then the restart.
GENTLE = [
    "repair_begun:kill:1",
    "repair_disconnected:kill",
    "repair_done:kill:1",
    "repair_begun:kill:2",
    "repair_done:kill:2",
]
MANY = [f"55119777700{number:02d}@s.whatsapp.net" for number in range(8)]


@pytest.mark.parametrize("point", GENTLE)
async def test_a_reconnect_cut_short_goes_on(start_paired, eventually, point):
    agent, before = await start_paired(point)
    await dies(agent, agent.fault("a", "bad-mac", peers=MANY, per_minute=300))
    await agent.start()

    async def healed():
        shown = await agent.show("a")
        return (await over(agent))[-1:], shown["connection_status"], shown["health"]["verdict"]

    # What was counted of the errors died with the agent: they may have to come again first.
    await eventually(healed, (["recovered: connected"], "CONNECTED", "healthy"))
    assert json.loads(session_file(agent).read_text())["device"] == before["device"]
    begun = {one.split(":")[0] for kind, one in await agent.story("a") if kind == "repair"}
    assert "reconnect" in begun and begun <= {"reconnect", "restart", "regenerate_keys"}


KEYS = ["repair_begun:kill:1", "repair_done:kill:1"]


@pytest.mark.parametrize("point", KEYS)
async def test_new_keys_cut_short_are_made_by_the_next_life(start_paired, eventually, point):
    agent, before = await start_paired(point)
    await dies(agent, agent.fault("a", "bad-mac"))
    await agent.start()

    async def healed():
        shown = await agent.show("a")
        return (await over(agent))[-1:], shown["connection_status"], shown["health"]["verdict"]

    # What was counted of the errors died with the agent: they may have to come again first.
    await eventually(healed, (["recovered: connected"], "CONNECTED", "healthy"))
    assert json.loads(session_file(agent).read_text())["device"] == before["device"]


async def lose_the_store(agent):
    """A crash, and a new store of another program in the place of the session's."""
    folder = session_file(agent).parent
    other = SessionFile(device="begun-anew")
    await agent.kill_worker("a", lambda: write_session(folder, other))


@pytest.mark.parametrize("point", ["repair_stopped:kill", "staging_way_free:kill"])
async def test_a_suspect_cut_short_comes_back_from_its_snapshot(start_paired, eventually, point):
    agent, before = await start_paired(point)
    await lose_the_store(agent)
    await agent.dead()
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert json.loads(session_file(agent).read_text())["device"] == before["device"]


# What a logout ends in.
RENEW = [
    "action_begun:kill",
    "retire_manifest:kill",
    "retire_moved:kill",
    "set_aside:kill",
    "renew_done:kill",
]


@pytest.mark.parametrize("point", RENEW)
async def test_a_renewal_cut_short_is_ended_by_the_next_life(start_paired, eventually, point):
    agent, before = await start_paired(point)
    await dies(agent, agent.fault("a", "logout"))
    await agent.start()
    await renewed(agent, eventually, before)


async def test_a_renewal_that_fails_is_tried_again(start_paired, eventually):
    agent, before = await start_paired("mid_sweep:kill")
    way = agent.state / "sessions" / ".trash"
    way.rmdir()
    way.write_text("nothing can be moved in here")
    await agent.fault("a", "logout")

    async def failed():
        return [one for _, one in await agent.story("a") if one.startswith("renew: failed")]

    await eventually(failed)
    shown = await agent.show("a")
    assert (shown["connection_status"], shown["reason"]) == ("AUTH_FAILURE", "logout")
    way.unlink()
    await renewed(agent, eventually, before)


async def renewed(agent, eventually, before):
    """It waits for a scan, and the files of the pairing that ended are in the trash."""
    await eventually(lambda: agent.status("a"), "QR_REQUIRED")
    assert (await agent.show("a"))["paired"] is False
    retired = [device_of(agent.state / "sessions" / ".trash" / one) for one in await trash(agent)]
    assert retired.count(before["device"]) == 1
    assert json.loads(session_file(agent).read_text())["device"] != before["device"]
    assert "renew: done" in str(await agent.story("a"))
