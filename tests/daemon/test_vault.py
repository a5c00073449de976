"""Restore, export and import of a real agent with real workers, driven over the command line."""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

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
