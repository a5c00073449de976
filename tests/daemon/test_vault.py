"""Snapshots, restore, export and import of a real agent with real workers."""

import json


async def connected(agent, eventually, id="a", **settings):
    await agent.create(id, **settings)
    await eventually(lambda: agent.status(id), "CONNECTED")


async def test_a_snapshot_of_a_running_session_is_whole_and_comes_back(agent, eventually):
    await connected(agent, eventually)
    made = await agent.do("POST", "/api/instance/a/snapshots")
    assert (made["good"], made["state"], made["files"]) == (True, "whole", 1)
    listed = await agent.do("GET", "/api/instance/a/snapshots")
    assert [one["name"] for one in listed["snapshots"]] == [made["name"]]
    await agent.do("POST", "/api/instance/a/stop")
    await eventually(lambda: agent.status("a"), "DISCONNECTED")
    file = agent.state / "sessions" / "a" / "session" / "sandbox.json"
    before = json.loads(file.read_bytes())
    file.write_bytes(b"")
    done = await agent.do("POST", f"/api/instance/a/snapshots/{made['name']}/restore", {})
    assert done["trash"].startswith("a.")
    assert json.loads(file.read_bytes())["account"] == before["account"]
    await agent.do("POST", "/api/instance/a/start")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert "QR_REQUIRED" not in str((await agent.story("a"))[-8:])
    kinds = [kind for kind, _ in await agent.story("a")]
    assert {"snapshot", "restoring", "snapshot_restored"} <= set(kinds)
