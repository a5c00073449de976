"""The agent killed at every point of a repair: the next one ends it, and no session is lost."""

import asyncio
import json

import pytest

from agent.engines.sandbox.rules import SessionFile, write_session
from agent.supervise import act
from tests.waiting import connected
from tests.world.virtual import kill

SETTINGS = "[sessions]\nsnapshots = 2\n"


@pytest.fixture
def start_paired(make_agent, eventually):
    """An agent that will die at a point, with a paired instance and its device.

    Its first life paired and copied it, so that the second one passes nothing but the repair's
    points.
    """

    async def start(point):
        agent = make_agent(SETTINGS)
        await agent.start()
        await connected(agent, eventually, "a")
        await agent.do("PATCH", "/api/instance/a", {"settings": {"scan": "manual"}})
        for _ in range(2):  # with a backup one too many
            await agent.do("POST", "/api/instance/a/snapshots")
        await agent.kill()
        await agent.start(point)
        await eventually(lambda: agent.status("a"), "CONNECTED")
        return agent, agent.device()

    return start


async def recovered(agent):
    return "recovered: connected" in await agent.told("a", "repair_over")


async def trash(agent):
    return [one["name"] for one in (await agent.do("GET", "/api/trash"))["trash"]]


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
    "repair_begun:kill:2",
    "repair_stopped:kill",
    # Writes of the identity, the backup's manifest, the identity again, the trash's manifest
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
    await agent.dies(agent.do("POST", "/api/instance/a/cleanup", {"confirm": True}))
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")
    await asyncio.sleep(600)
    assert (await agent.show("a"))["paired"] is True
    assert agent.device() == before


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
    await agent.dies(agent.do("POST", "/api/instance/a/cleanup", {"confirm": True}))
    monkeypatch.undo()
    new = agent.device()
    assert new != before
    await agent.start()
    await asyncio.sleep(600)
    assert await agent.status("a") == "CONNECTED"
    assert agent.device() == new


@pytest.mark.parametrize("point", CLEANUP)
async def test_a_cleanup_cut_short_is_ended_by_the_next_life(start_paired, eventually, point):
    agent, before = await start_paired(point)
    await agent.dies(agent.do("POST", "/api/instance/a/cleanup", {"confirm": True}))
    assert before in kept_devices(agent)
    await agent.start()
    await eventually(
        lambda: agent.told("a", "repair_over"), ["cleaned: it waits for a scan of its QR code"]
    )
    shown = await agent.show("a")
    assert (shown["connection_status"], shown["paired"]) == ("QR_REQUIRED", False)
    assert before in kept_devices(agent), "the session that was retired is not lost"

    (retired,) = [
        name
        for name in await trash(agent)
        if device_of(agent.state / "sessions" / ".trash" / name) == before
    ]
    if not point.startswith("retire"):
        return
    await agent.do("DELETE", "/api/instance/a")
    await agent.do("POST", f"/api/trash/{retired}/restore")
    await agent.do("POST", "/api/instance/a/enable")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert agent.device() == before


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


async def damage(agent):
    await agent.dies(agent.fault("a", "corrupt-files"))


async def lose_the_store(agent):
    """A crash, and a new store of another program in the place of the session's."""
    other = SessionFile(device="begun-anew")
    await agent.kill_worker("a", lambda: write_session(agent.session_file().parent, other))
    await agent.dead()


@pytest.mark.parametrize(
    ("breaks", "point"),
    [
        *((damage, point) for point in RESTORE),
        *((lose_the_store, point) for point in ("repair_stopped:kill", "staging_way_free:kill")),
    ],
)
async def test_a_restore_cut_short_is_ended_by_the_next_life(
    start_paired, eventually, breaks, point
):
    agent, before = await start_paired(point)
    await breaks(agent)
    assert before in kept_devices(agent)
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")
    await eventually(lambda: recovered(agent))
    assert agent.device() == before
    assert (await agent.show("a"))["paired"] is True


# A worker that hangs is replaced at once.
RESTART = ["repair_begun:kill:1", "repair_done:kill:1"]


@pytest.mark.parametrize("point", RESTART)
async def test_a_restart_cut_short_goes_on(start_paired, eventually, point):
    agent, before = await start_paired(point)
    await agent.dies(agent.fault("a", "stuck-loading"))
    await agent.start()
    await eventually(lambda: agent.told("a", "repair_over"), ["recovered: connected"])
    assert agent.device() == before
    begun = await agent.steps()
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


@pytest.mark.parametrize(
    ("point", "how"),
    [
        *((point, {"peers": MANY, "per_minute": 300}) for point in GENTLE),
        *((point, {}) for point in ("repair_begun:kill:1", "repair_done:kill:1")),
    ],
)
async def test_a_repair_of_keys_cut_short_goes_on(start_paired, eventually, point, how):
    agent, before = await start_paired(point)
    await agent.dies(agent.fault("a", "bad-mac", **how))
    await agent.start()

    async def healed():
        shown, over = await agent.show("a"), await agent.told("a", "repair_over")
        return over[-1:], shown["connection_status"], shown["health"]["verdict"]

    # The counts of errors died with the agent: the errors may have to come again first.
    await eventually(healed, (["recovered: connected"], "CONNECTED", "healthy"))
    assert agent.device() == before
    begun = set(await agent.steps())
    assert begun <= {"reconnect", "restart", "regenerate_keys"}
    assert "reconnect" in begun or not how


# Points at which the renewal after a logout is killed
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
    await agent.dies(agent.fault("a", "logout"))
    await agent.start()
    await renewed(agent, eventually, before)


async def test_a_renewal_that_fails_is_tried_again(start_paired, eventually):
    agent, before = await start_paired("mid_sweep:kill")
    way = agent.state / "sessions" / ".trash"
    way.rmdir()
    way.write_text("nothing can be moved in here")
    await agent.fault("a", "logout")

    async def failed():
        return "renew: failed" in str(await agent.story("a"))

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
    assert retired.count(before) == 1
    assert agent.device() != before
    assert "renew: done" in str(await agent.story("a"))
