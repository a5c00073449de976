"""Snapshots, restore, import and deletion: whole, and killed at each step."""

import asyncio
import json

import pytest

from agent.supervise.gate import Alone


async def connected(agent, eventually, id="a", **settings):
    """Paired by this one scan: a session that asks for another never connects again."""
    await agent.create(id, scan="manual", **settings)
    await eventually(lambda: agent.status(id), "QR_REQUIRED")
    await agent.do("POST", f"/api/instance/{id}/sandbox/scan")
    await eventually(lambda: agent.status(id), "CONNECTED")


def session_of(agent, id="a"):
    return json.loads(agent.session_file(id).read_bytes())


def staging(agent):
    return [part.name for part in (agent.state / "sessions" / ".staging").iterdir()]


async def scans_asked_for(agent, id="a"):
    """1 is the first pairing."""
    return sum("→ QR_REQUIRED" in sentence for sentence in await agent.told(id, "status"))


async def names(agent, id="a"):
    found = await agent.do("GET", f"/api/instance/{id}/snapshots")
    assert all(not one["problem"] for one in found["snapshots"])
    return [one["name"] for one in found["snapshots"]]


async def send(agent, path, data=None):
    """Post bytes, and get bytes."""
    how = {"data": data, "headers": {"Content-Type": "application/gzip"}}
    async with agent._client.post(f"http://localhost{path}", **how) as answer:
        return answer.status, await answer.read()


async def killed_at(agent, eventually, point, ask):
    """Start the agent with a failpoint, ask, and see it die there; then start it again without.

    The same workers go on, as they do when an agent is killed.
    """
    await agent.stop()
    await agent.start(f"{point}:kill")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    await agent.dies(ask())
    await agent.start()


async def test_a_snapshot_of_a_running_session_is_whole_and_comes_back(agent, eventually):
    await connected(agent, eventually)
    made = await agent.do("POST", "/api/instance/a/snapshots")
    assert (made["good"], made["state"], made["files"]) == (True, "whole", 1)
    assert await names(agent) == [made["name"]]
    await agent.do("POST", "/api/instance/a/stop")
    await eventually(agent.unit_state, "inactive")  # it has saved its session
    file = agent.session_file()
    before = session_of(agent)
    file.write_bytes(b"")
    done = await agent.do("POST", f"/api/instance/a/snapshots/{made['name']}/restore", {})
    assert done["trash"].startswith("a.")
    assert session_of(agent)["account"] == before["account"]
    assert await agent.status("a") == "DISCONNECTED", "an operator stopped it"
    await agent.do("POST", "/api/instance/a/start")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    run = await agent.run_of("a")
    await agent.do("POST", f"/api/instance/a/snapshots/{made['name']}/restore", {})
    await eventually(lambda: agent.is_back("a", run))
    assert (await agent.show("a"))["override"] == "none"
    story = await agent.story("a")
    assert await scans_asked_for(agent) == 1
    assert {"snapshot", "restoring", "snapshot_restored"} <= {kind for kind, _ in story}
    assert "stopped its unit" not in str(story)


@pytest.mark.parametrize(
    "point",
    ["import_unpacked", "staging_made", "staging_ready", "retire_moved", "staging_way_free"],
)
async def test_an_agent_killed_in_an_import_leaves_the_old_or_the_new(agent, eventually, point):
    await connected(agent, eventually)
    _, archive = await send(agent, "/api/instance/a/export")
    mark = agent.state / "sessions" / "a" / "session" / "newer"
    mark.write_bytes(b"of the present session")

    async def imports() -> None:
        await agent.do("POST", "/api/instance/a/disable")
        await send(agent, "/api/import?replace=true&enable=true", archive)

    await killed_at(agent, eventually, point, imports)
    replaced = point in ("retire_moved", "staging_way_free")
    assert (await agent.show("a"))["enabled"] is replaced, "the record is of the same session"
    await agent.do("POST", "/api/instance/a/enable")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert staging(agent) == []
    assert mark.exists() is not replaced
    assert len((await agent.do("GET", "/api/trash"))["trash"]) == replaced
    assert (await agent.show("a"))["paired"] is True
    assert await scans_asked_for(agent) == 1


# what the agent does with them by itself


async def test_sessions_that_are_due_together_are_copied_one_in_each_look(agent, eventually):
    for id in "abc":
        await connected(agent, eventually, id)

    async def copies():
        return sum([len(await names(agent, id)) for id in "abc"])

    assert await eventually(copies) == 1
    await eventually(copies, 3)


async def back_from_a_snapshot(agent):
    kinds = [kind for kind, _ in await agent.story("a")]
    return "snapshot_restored" in kinds and await agent.status("a") == "CONNECTED"


async def test_f43_a_damaged_session_comes_back_from_its_snapshot_without_a_scan(
    make_agent, eventually
):
    """Not from one that was made while the clock was ahead."""
    agent = make_agent("[sessions]\nsnapshots = 2\n")
    await agent.start()
    await connected(agent, eventually)
    early = await agent.do("POST", "/api/instance/a/snapshots")
    shelf = agent.state / "sessions" / ".snapshots" / "a"
    (shelf / early["name"]).rename(shelf / f"20361119T{early['name'].partition('T')[2]}")
    fresh = await agent.do("POST", "/api/instance/a/snapshots")
    await agent.fault("a", "corrupt-files")
    await eventually(lambda: back_from_a_snapshot(agent))
    assert await scans_asked_for(agent) == 1
    (said,) = await agent.told("a", "snapshot_restored")
    assert fresh["name"] in said
    found = (await agent.do("GET", "/api/instance/a/snapshots"))["snapshots"]
    assert [(one["backup"], one["state"]) for one in found] == [(True, "damaged"), (False, "whole")]
    assert found[1]["name"] == fresh["name"], "the backup before the repair pruned the other one"


async def test_a_damaged_session_that_is_put_right_meanwhile_goes_on(
    agent, eventually, monkeypatch
):
    await connected(agent, eventually)
    file = agent.state / "sessions" / "a" / "session" / "sandbox.json"
    whole = file.read_bytes()
    monkeypatch.setattr(Alone, "has_copy", lambda *_: True)
    await agent.fault("a", "corrupt-files")

    async def cleanup():
        return any(said.startswith("cleanup: ") for _, said in await agent.story("a"))

    await asyncio.sleep(60)
    assert not await cleanup(), "another machine brings its copy"
    monkeypatch.undo()
    await eventually(cleanup)
    file.write_bytes(whole)
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert (session_of(agent), await scans_asked_for(agent)) == (json.loads(whole), 1)


async def test_f42_a_deleted_session_comes_back_from_its_snapshot(agent, eventually):
    await connected(agent, eventually)
    await agent.do("POST", "/api/instance/a/snapshots")
    folder = agent.state / "sessions" / "a"
    folder.rename(agent.state / "lost")
    await agent.kill_worker("a")
    await eventually(lambda: back_from_a_snapshot(agent))
    assert await scans_asked_for(agent) == 1
    assert folder.exists()


@pytest.mark.parametrize("point", ["retire_moved", "deletion_retired"])
async def test_a_deletion_that_was_cut_off_is_finished_by_the_next_agent(agent, eventually, point):
    await connected(agent, eventually)
    account = session_of(agent)["account"]
    await killed_at(agent, eventually, point, lambda: agent.ask("DELETE", "/api/instance/a"))

    async def gone() -> bool:
        return (await agent.ask("GET", "/api/instance/a"))[0] == 404

    await eventually(gone)
    assert not agent.machine.worker("a").status.runs
    (retired,) = (await agent.do("GET", "/api/trash"))["trash"]
    await agent.do("POST", f"/api/trash/{retired['name']}/restore", {})
    assert session_of(agent)["account"] == account
    await eventually(lambda: agent.status("a"), "CONNECTED")


@pytest.mark.parametrize("point", ["deletion_begun", "retire_manifest", ""])
async def test_a_deletion_that_was_cut_off_or_refused_leaves_its_session_as_it_was(
    agent, eventually, point
):
    await connected(agent, eventually)
    account, trash = session_of(agent)["account"], agent.state / "sessions" / ".trash"
    if point:
        await killed_at(agent, eventually, point, lambda: agent.ask("DELETE", "/api/instance/a"))
    else:
        aside = trash.rename(trash.with_name("aside"))
        trash.touch()
        status, told = await agent.ask("DELETE", "/api/instance/a")
        assert status >= 500, told
        trash.unlink()
        aside.rename(trash)
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert session_of(agent)["account"] == account
    assert (await agent.show("a"))["enabled"]
    await agent.do("DELETE", "/api/instance/a")
    (retired,) = (await agent.do("GET", "/api/trash"))["trash"]
    assert retired["id"] == "a"


@pytest.mark.parametrize("first", ["restore", "create"])
async def test_a_name_that_two_requests_make_at_once_is_given_to_one(agent, eventually, first):
    await connected(agent, eventually)
    await agent.do("DELETE", "/api/instance/a")
    (retired,) = (await agent.do("GET", "/api/trash"))["trash"]
    asked = {
        "restore": agent.ask("POST", f"/api/trash/{retired['name']}/restore", {}),
        "create": agent.ask("POST", "/api/instance", {"id": "a", "engine": "sandbox"}),
    }
    one, other = await asyncio.gather(asked.pop(first), *asked.values())
    assert (one[0], other[0]) == (201, 409), other
    assert (agent.state / "sessions" / "a" / "instance.json").exists()
    left = (await agent.do("GET", "/api/trash"))["trash"]
    assert left == ([] if first == "restore" else [retired])


async def test_a_refused_restore_leaves_its_entry_in_the_trash(agent, eventually):
    await agent.create("a")
    await agent.do("DELETE", "/api/instance/a")
    (retired,) = (await agent.do("GET", "/api/trash"))["trash"]
    own = agent.state / "sessions" / ".trash" / retired["name"]
    other = own.rename(own.with_name("b" + own.name[1:]))
    assert (await agent.ask("POST", f"/api/trash/{other.name}/restore", {}))[0] >= 400
    assert [it["id"] for it in (await agent.do("GET", "/api/trash"))["trash"]] == ["b"]
    assert not (agent.state / "sessions" / "b").exists()
