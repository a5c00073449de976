"""A session's folder is deleted, moved or replaced under its live worker."""

import contextlib
import json
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


async def kinds(agent, id="a"):
    return [kind for kind, _ in await agent.story(id)]


@pytest.mark.parametrize("part", ["", "session"], ids=["all of it", "its session"])
async def test_a_deleted_folder_is_noticed_saved_from_the_worker_and_no_stop_loses_the_pairing(
    agent, eventually, part
):
    folder = await connected(agent, eventually)
    account, codes = (await agent.show("a"))["account"], await agent.codes("a")
    pid = await agent.pid("a")
    with standing_still(agent):
        shutil.rmtree(folder / part)

    async def goes_on():
        shown = await agent.show("a")
        return shown["unit"]["main_pid"] != pid and shown["connection_status"] == "CONNECTED"

    await eventually(goes_on)
    assert "folder_saved" in await kinds(agent)
    assert (folder / "session" / "sandbox.json").exists()
    await eventually(lambda: json.loads((folder / "instance.json").read_text())["paired"])
    await agent.do("POST", "/api/instance/a/stop")
    await eventually(lambda: agent.status("a"), "DISCONNECTED")
    await agent.do("POST", "/api/instance/a/start")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert (await agent.show("a"))["account"] == account
    assert await agent.codes("a") == codes


async def test_a_folder_in_the_place_of_a_live_session_goes_to_the_trash(agent, eventually):
    folder = await connected(agent, eventually)
    pid = await agent.pid("a")
    with standing_still(agent):
        shutil.rmtree(folder)
        (folder / "session").mkdir(parents=True)
        (folder / "session" / "somebody's").write_text("file")

    async def goes_on():
        shown = await agent.show("a")
        return shown["unit"]["main_pid"] != pid and shown["connection_status"] == "CONNECTED"

    await eventually(goes_on)
    (kept,) = agent.state.glob("sessions/.trash/a*/session/somebody's")
    assert kept.read_text() == "file"


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


async def test_nothing_ends_a_worker_that_holds_the_only_copy_of_a_pairing(agent, eventually):
    folder = await connected(agent, eventually)
    pid = await agent.pid("a")
    # In the way of what the worker saves, as an engine would be that cannot save elsewhere.
    obstacle = agent.state / "run" / "a" / "refuge"
    obstacle.write_text("in the way")
    with standing_still(agent):
        shutil.rmtree(folder)
    await eventually(lambda: reason(agent), "folder_lost")
    for order in ("stop", "disable", "restart"):
        status, answer = await agent.ask("POST", f"/api/instance/a/{order}")
        assert (status, answer["error"]) == (409, "folder_lost"), answer
    assert await agent.pid("a") == pid
    obstacle.unlink()
    await eventually(lambda: kinds_have(agent, "folder_saved"))
    await eventually(lambda: agent.status("a"), "CONNECTED")


async def kinds_have(agent, kind):
    return kind in await kinds(agent)
