"""Snapshots, restore, export and import of a real agent with real workers, killed at each step."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import aiohttp
import pytest

from tests.forked import can_fork, fork_agent

REPOSITORY = Path(__file__).parents[2]


async def connected(agent, eventually, id="a", **settings):
    """Paired by this one scan: a session that asks for another never connects again."""
    await agent.create(id, scan="manual", **settings)
    await eventually(lambda: agent.status(id), "QR_REQUIRED")
    await agent.do("POST", f"/api/instance/{id}/sandbox/scan")
    await eventually(lambda: agent.status(id), "CONNECTED")


def session_of(agent, id="a"):
    file = agent.state / "sessions" / id / "session" / "sandbox.json"
    return json.loads(file.read_bytes())


def staging(agent):
    return [part.name for part in (agent.state / "sessions" / ".staging").iterdir()]


async def scans_asked_for(agent, id="a"):
    """1 is the first pairing."""
    story = await agent.story(id)
    return sum("→ QR_REQUIRED" in sentence for kind, sentence in story if kind == "status")


async def names(agent, id="a"):
    found = await agent.do("GET", f"/api/instance/{id}/snapshots")
    assert all(not one["problem"] for one in found["snapshots"])
    return [one["name"] for one in found["snapshots"]]


async def cli(agent, *words):
    """The program, forked where it can be; its exit status and what it said."""
    argv = (*map(str, words), "--socket", str(agent.state / "api.sock"))
    with tempfile.TemporaryFile() as out:
        if can_fork(os.environ):
            process = fork_agent(argv, os.environ, out)
        else:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "agent", *argv), stdout=out, stderr=out, cwd=REPOSITORY
            )
        try:
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        out.seek(0)
        return process.returncode, out.read().decode()


async def killed_at(agent, eventually, point, ask):
    """Start the agent with a failpoint, ask, and see it die there; then start it again without.

    The same workers go on, as they do when an agent is killed.
    """
    await agent.stop()
    await agent.start({"WA_FAILPOINT": f"{point}:kill"})
    await eventually(lambda: agent.status("a"), "CONNECTED")
    asked = asyncio.ensure_future(ask())
    assert agent.process is not None
    async with asyncio.timeout(60):
        assert await agent.process.wait() == -signal.SIGKILL
    # A command would wait for the next agent, and ask it again.
    asked.cancel()
    with contextlib.suppress(asyncio.CancelledError, aiohttp.ClientError, ConnectionError):
        await asked
    await agent.start()


async def test_a_snapshot_of_a_running_session_is_whole_and_comes_back(agent, eventually):
    await connected(agent, eventually)
    made = await agent.do("POST", "/api/instance/a/snapshots")
    assert (made["good"], made["state"], made["files"]) == (True, "whole", 1)
    assert await names(agent) == [made["name"]]
    await agent.do("POST", "/api/instance/a/stop")

    async def worker() -> str:
        return str((await agent.show("a"))["unit"]["state"])

    await eventually(worker, "inactive")  # it has saved its session
    file = agent.state / "sessions" / "a" / "session" / "sandbox.json"
    before = session_of(agent)
    file.write_bytes(b"")
    done = await agent.do("POST", f"/api/instance/a/snapshots/{made['name']}/restore", {})
    assert done["trash"].startswith("a.")
    assert session_of(agent)["account"] == before["account"]
    assert await agent.status("a") == "DISCONNECTED", "an operator stopped it"
    await agent.do("POST", "/api/instance/a/start")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    story = await agent.story("a")
    assert await scans_asked_for(agent) == 1
    assert {"snapshot", "restoring", "snapshot_restored"} <= {kind for kind, _ in story}


async def test_restoring_a_running_session_stops_it_and_starts_it_again(agent, eventually):
    await connected(agent, eventually)
    made = await agent.do("POST", "/api/instance/a/snapshots")
    before = await agent.pid("a")
    status, out = await cli(agent, "restore", "a", made["name"])
    assert (status, "a is as it was at" in out) == (0, True), out

    async def back():
        shown = await agent.show("a")
        pid = shown["unit"]["main_pid"]
        return shown["connection_status"] == "CONNECTED" and pid not in (0, before)

    await eventually(back)
    assert (await agent.show("a"))["override"] == "none"
    assert "stopped its unit" not in str(await agent.story("a"))
    status, told = await cli(agent, "why", "a")
    assert (status, "begins to restore" in told) == (0, True)
    assert "the trash has the old session as a." in told


async def names_on_disk(agent, id="a"):
    shelf = agent.state / "sessions" / ".snapshots" / id
    return sorted(part.name for part in shelf.iterdir())


@pytest.mark.parametrize("step", ["begun", "copied", "manifest", "verified", "visible"])
async def test_an_agent_killed_in_a_snapshot_leaves_no_partial_one(agent, eventually, step):
    await connected(agent, eventually)
    before = session_of(agent)
    await killed_at(
        agent,
        eventually,
        f"snapshot_{step}",
        lambda: agent.ask("POST", "/api/instance/a/snapshots"),
    )
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert session_of(agent)["account"] == before["account"]
    visible = await names(agent)
    assert len(visible) == (step == "visible")

    async def swept():
        return await names_on_disk(agent) == visible

    await eventually(swept)
    await agent.do("POST", "/api/instance/a/snapshots")
    assert len(await names(agent)) == len(visible) + 1


RESTORE_POINTS = (
    *("restore_copied", "staging_made", "staging_ready", "retire_manifest", "retire_moved"),
    *("staging_way_free", "staging_in_place"),
)


@pytest.mark.parametrize("point", RESTORE_POINTS)
async def test_an_agent_killed_in_a_restore_finishes_it_or_leaves_the_old(agent, eventually, point):
    await connected(agent, eventually)
    made = await agent.do("POST", "/api/instance/a/snapshots")
    mark = agent.state / "sessions" / "a" / "session" / "newer"
    mark.write_bytes(b"of the present session")
    path = f"/api/instance/a/snapshots/{made['name']}/restore"
    await killed_at(agent, eventually, point, lambda: agent.ask("POST", path, {}))
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert staging(agent) == []
    finished = point in ("retire_moved", "staging_way_free", "staging_in_place")
    assert mark.exists() is not finished
    trash = (await agent.do("GET", "/api/trash"))["trash"]
    assert len(trash) == finished
    if finished:
        kept = agent.state / "sessions" / ".trash" / trash[0]["name"] / "session" / "newer"
        assert kept.read_bytes() == b"of the present session"
    assert await scans_asked_for(agent) == 1
    assert await names(agent) == [made["name"]]


# moving to another machine


async def test_export_and_import_move_a_session_to_another_machine(
    make_agent, eventually, tmp_path
):
    here, there = make_agent(name="here"), make_agent(name="there")
    await here.start()
    await there.start()
    await connected(here, eventually, messages_per_minute=0)
    file = tmp_path / "a.tar.gz"
    status, out = await cli(here, "export", "a", file)
    assert status == 0, out
    assert file.stat().st_mode & 0o777 == 0o600
    sha256 = out.split()[0]
    await here.do("POST", "/api/instance/a/disable")
    status, out = await cli(there, "import", file, "--enable")
    assert (status, sha256 in out) == (0, True), out
    await eventually(lambda: there.status("a"), "CONNECTED")
    assert session_of(there)["account"] == session_of(here)["account"]
    shown = await there.show("a")
    assert (shown["paired"], shown["account"]) == (True, session_of(here)["account"])
    assert await scans_asked_for(there) == 0
    status, out = await cli(there, "import", file)
    assert (status, "it exists" in out) == (4, True), out
    status, out = await cli(there, "import", file, "b")
    assert (status, "instance a is the same linked device" in out) == (4, True), out
    assert staging(there) == []


@pytest.mark.parametrize(
    "point",
    ["import_unpacked", "staging_made", "staging_ready", "retire_moved", "staging_way_free"],
)
async def test_an_agent_killed_in_an_import_leaves_the_old_or_the_new(
    agent, eventually, tmp_path, point
):
    await connected(agent, eventually)
    file = tmp_path / "a.tar.gz"
    await cli(agent, "export", "a", file)
    mark = agent.state / "sessions" / "a" / "session" / "newer"
    mark.write_bytes(b"of the present session")
    await killed_at(
        agent, eventually, point, lambda: cli(agent, "import", file, "--replace", "--enable")
    )
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert staging(agent) == []
    replaced = point in ("retire_moved", "staging_way_free")
    assert mark.exists() is not replaced
    trash = (await agent.do("GET", "/api/trash"))["trash"]
    assert len(trash) == replaced
    assert (await agent.show("a"))["paired"] is True
    assert await scans_asked_for(agent) == 1


# what the agent does with them by itself


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
    ahead = "20361119T" + early["name"].partition("T")[2]
    (shelf / early["name"]).rename(shelf / ahead)
    fresh = await agent.do("POST", "/api/instance/a/snapshots")
    await agent.fault("a", "corrupt-files")
    await eventually(lambda: back_from_a_snapshot(agent), within=60)
    assert await scans_asked_for(agent) == 1
    (said,) = [text for kind, text in await agent.story("a") if kind == "snapshot_restored"]
    assert fresh["name"] in said
    found = (await agent.do("GET", "/api/instance/a/snapshots"))["snapshots"]
    assert [(one["backup"], one["state"]) for one in found] == [(True, "damaged"), (False, "whole")]
    assert found[1]["name"] == fresh["name"], "the backup before the repair pruned the other one"


async def test_f42_a_deleted_session_comes_back_from_its_snapshot(make_agent, eventually):
    # A folder that is away may come back; nothing is restored over it before this time.
    agent = make_agent("\n[recovery]\nsuspect_settle = 1\n")
    await agent.start()
    await connected(agent, eventually)
    await agent.do("POST", "/api/instance/a/snapshots")
    folder = agent.state / "sessions" / "a"
    folder.rename(agent.state / "lost")
    os.kill(await agent.pid("a"), signal.SIGKILL)
    await eventually(lambda: back_from_a_snapshot(agent), within=60)
    assert await scans_asked_for(agent) == 1
    assert folder.exists()


@pytest.mark.parametrize(
    "point", ["deletion_begun", "retire_manifest", "retire_moved", "deletion_retired"]
)
async def test_a_deletion_that_was_cut_off_is_finished_by_the_next_agent(agent, eventually, point):
    await connected(agent, eventually)
    account = session_of(agent)["account"]
    await killed_at(agent, eventually, point, lambda: agent.ask("DELETE", "/api/instance/a"))

    async def gone() -> bool:
        return (await agent.ask("GET", "/api/instance/a"))[0] == 404

    await eventually(gone)
    assert agent.worker_pids() == []
    (retired,) = (await agent.do("GET", "/api/trash"))["trash"]
    await agent.do("POST", f"/api/trash/{retired['name']}/restore", {})
    assert session_of(agent)["account"] == account
    assert await agent.status("a") == "DISCONNECTED", "restored ones are not started unasked"
