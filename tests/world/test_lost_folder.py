"""A session's folder is deleted, moved or replaced under its live worker."""

import asyncio
import shutil

import pytest


async def connected(agent, eventually, id="a"):
    await agent.create(id)
    await eventually(lambda: agent.status(id), "CONNECTED")
    return agent.state / "sessions" / id


async def reason(agent, id="a"):
    return (await agent.show(id))["health"]["reason"]


async def troubles(agent):
    return [one["kind"] for one in (await agent.do("GET", "/api/troubles"))["troubles"]]


@pytest.mark.parametrize("part", ["", "session"], ids=["all of it", "its session"])
async def test_nothing_ends_a_worker_that_holds_the_only_copy_of_a_pairing(agent, eventually, part):
    folder = await connected(agent, eventually)
    account, codes = (await agent.show("a"))["account"], await agent.codes("a")
    snapshot = (await agent.do("POST", "/api/instance/a/snapshots"))["name"]
    run = await agent.run_of("a")
    shutil.rmtree(folder / part)
    await eventually(lambda: reason(agent), "folder_lost")
    for order in ("stop", "disable", "restart"):
        status, answer = await agent.ask("POST", f"/api/instance/a/{order}")
        assert (status, answer["error"]) == (409, "folder_lost"), answer
    await agent.do("POST", "/force-reconnection/a")
    await asyncio.sleep(60)
    assert await agent.run_of("a") == run
    await agent.do("POST", f"/api/instance/a/snapshots/{snapshot}/restore", {})
    await eventually(lambda: reason(agent), "")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert ((await agent.show("a"))["account"], await agent.codes("a")) == (account, codes)


async def test_a_start_writes_an_identity_file_again_that_was_changed(agent, eventually):
    """It is JSON all the same, so no check of the file tells."""
    file = await connected(agent, eventually) / "instance.json"
    changed = file.read_bytes().replace(b"scan_after", b"scan_aftep")
    await agent.kill_worker("a", lambda: file.write_bytes(changed))
    await eventually(lambda: reason(agent), "misconfigured")
    await agent.do("POST", "/api/instance/a/start")
    await eventually(lambda: agent.status("a"), "CONNECTED")
