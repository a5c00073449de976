"""A session's folder is deleted, moved or replaced under its live worker."""

import contextlib
import shutil
import signal

import pytest


async def connected(agent, eventually, id="a"):
    await agent.create(id)
    await eventually(lambda: agent.status(id), "CONNECTED")
    return agent.state / "sessions" / id


@contextlib.contextmanager
def standing_still(agent):
    """It sees a folder before all that is done to it, or after."""
    agent.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        agent.process.send_signal(signal.SIGCONT)


async def reason(agent, id="a"):
    return (await agent.show(id))["health"]["reason"]


async def test_a_folder_that_was_moved_away_is_reported_and_well_when_it_is_back(agent, eventually):
    folder = await connected(agent, eventually)
    pid = await agent.pid("a")
    away = agent.state / "away"
    folder.rename(away)
    await eventually(lambda: reason(agent), "folder_lost")
    assert "was moved away or replaced" in (await agent.show("a"))["sentence"]
    away.rename(folder)
    await eventually(lambda: reason(agent), "")
    assert await agent.pid("a") == pid, "nothing was restarted for it"


@pytest.mark.parametrize("part", ["", "session"], ids=["all of it", "its session"])
async def test_nothing_ends_a_worker_that_holds_the_only_copy_of_a_pairing(agent, eventually, part):
    folder = await connected(agent, eventually)
    account, codes = (await agent.show("a"))["account"], await agent.codes("a")
    snapshot = (await agent.do("POST", "/api/instance/a/snapshots"))["name"]
    pid = await agent.pid("a")
    with standing_still(agent):
        shutil.rmtree(folder / part)
    await eventually(lambda: reason(agent), "folder_lost")
    for order in ("stop", "disable", "restart"):
        status, answer = await agent.ask("POST", f"/api/instance/a/{order}")
        assert (status, answer["error"]) == (409, "folder_lost"), answer
    assert await agent.pid("a") == pid
    await agent.do("POST", f"/api/instance/a/snapshots/{snapshot}/restore", {})
    await is_well(agent, eventually, account, codes)


async def is_well(agent, eventually, account, codes):
    async def found():
        shown = await agent.show("a")
        return shown["connection_status"], shown["health"]["reason"]

    await eventually(found, ("CONNECTED", ""), within=60)
    assert ((await agent.show("a"))["account"], await agent.codes("a")) == (account, codes)
