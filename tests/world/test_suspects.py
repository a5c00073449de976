"""A paired session whose store is lost: no kind of start pairs it again by accident."""

import asyncio
import shutil
from pathlib import Path

import pytest

from agent.engines.sandbox.rules import SessionFile, write_session
from tests.waiting import connected

QUICK = {"scan_after": 0.0, "login_seconds": 0.0, "sync_seconds": 0.05}


@pytest.fixture
async def agent(agent, eventually):
    """With a paired instance whose phone scans whatever it is shown."""
    await connected(agent, eventually, "a", **QUICK)
    return agent


async def ended(agent, eventually, count=1):
    """The sentence that ended its (last) repair."""

    async def over():
        found = await agent.told("a", "repair_over")
        return found if len(found) >= count else None

    return (await eventually(over))[-1]


async def stop(agent, eventually):
    await agent.do("POST", "/api/instance/a/stop")
    await eventually(agent.unit_state, "inactive")


def unpair(file):
    """As a store that another program laid out in its place."""
    write_session(file.parent, SessionFile(device="begun-anew"))


async def kill(agent, lose):
    await agent.kill_worker("a", lose)


async def crash(agent, lose):
    lose()
    await agent.fault("a", "crash")


async def kill_both(agent, lose):
    """The machine went down with everything on it."""
    await agent.kill()
    await agent.kill_worker("a", lose)
    worker = agent.machine.worker("a")
    await worker.stop()  # before its next run
    worker.reset_failed()
    await agent.start()


async def start_by_an_operator(agent, lose):
    await agent.do("PATCH", "/api/instance/a", {"settings": {"scan": "manual"}})
    await agent.do("POST", "/api/instance/a/stop")
    await asyncio.sleep(60)
    assert await agent.unit_state() == "inactive"
    lose()
    await agent.do("POST", "/api/instance/a/start")


@pytest.mark.parametrize(
    "begin", [kill, crash, kill_both, start_by_an_operator], ids=lambda each: each.__name__
)
@pytest.mark.parametrize("lose", [Path.unlink, unpair], ids=["gone", "unpaired"])
async def test_f42_a_lost_store_comes_back_from_its_snapshot_after_every_kind_of_start(
    agent, eventually, lose, begin
):
    before, codes = agent.device(), await agent.codes("a")
    await agent.do("POST", "/api/instance/a/snapshots")
    await begin(agent, lambda: lose(agent.session_file()))
    assert await ended(agent, eventually) == "recovered: connected"
    assert agent.device() == before
    assert await agent.codes("a") == codes
    assert [one for one in await agent.steps() if one != "back_up"] == ["restore"]
    shown = await agent.show("a")
    assert (shown["connection_status"], shown["paired"]) == ("CONNECTED", True)
    assert "unpaired without a logout" in str(await agent.story("a"))


async def test_f42_a_session_that_was_paired_again_and_lost_again_is_repaired_again(
    agent, eventually
):
    for count in (1, 2):
        await eventually(lambda: agent.status("a"), "CONNECTED")
        await stop(agent, eventually)
        shutil.rmtree(agent.state / "sessions" / ".snapshots" / "a", ignore_errors=True)
        agent.session_file().unlink()
        await agent.do("POST", "/api/instance/a/start")
        assert (await ended(agent, eventually, 2 * count - 1)).startswith("gave up")
        path = "/api/instance/a/ensure-healthy"
        assert (await agent.do("POST", path, {"confirm": True}))["cleaned"]


async def test_where_many_come_up_unpaired_no_new_pairing_begins_until_a_person_releases_them(
    make_agent, eventually
):
    one = make_agent()
    await one.start()
    await connected(one, eventually, *"abc", **QUICK)
    for id in "abc":
        await one.kill_worker(id, one.session_file(id).unlink)

    async def incident():
        found = (await one.do("GET", "/api/incidents"))["incidents"]
        return found and (found[0]["code"], sorted(found[0]["members"]))

    await eventually(incident, ("unpaired_suspect", ["a", "b", "c"]))
    since = await all_begun(one)
    await asyncio.sleep(600)
    assert await all_begun(one) == since
    for id in "abc":
        shown = await one.show(id)
        assert (shown["connection_status"], shown["paired"]) == ("AUTH_FAILURE", True)
        assert shown["unit"]["state"] == "inactive"
        assert shown["repair"]["ending"] == ""

    await one.do("POST", "/api/incidents/sandbox/release")
    for id in "abc":
        await eventually(lambda id=id: ending(one, id), "gave_up")
        assert await one.unit_state(id) == "inactive"


async def ending(agent, id):
    return (await agent.show(id))["repair"]["ending"]


async def all_begun(agent):
    return [(await agent.show(id))["repair"]["started"] for id in "abc"]
