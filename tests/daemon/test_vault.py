"""Restore of a real agent with real workers, driven over the command line."""

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
