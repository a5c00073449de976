"""An agent that hangs: the kernel still accepts for it, and nothing may wait for it for long."""

import asyncio
import json
import os
import signal
import sys

import pytest


async def run(agent, *words):
    """Exit status, output, errors."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "agent", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "WA_AGENT_SOCKET": str(agent.state / "api.sock")},
    )
    try:
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def stopped(agent):
    os.kill(agent.process.pid, signal.SIGSTOP)
    yield agent
    os.kill(agent.process.pid, signal.SIGCONT)


COMMANDS = ("health a", "list", "stop a", "events", "why a", "events -f")


async def test_commands_say_within_seconds_that_the_agent_hangs(stopped):
    for status, _, errors in await asyncio.gather(
        *(run(stopped, *words.split()) for words in COMMANDS)
    ):
        assert status == 5
        assert "does not answer within 3 s" in errors


async def test_the_doctor_tells_what_it_finds_without_the_agent(stopped):
    status, out, _ = await run(
        stopped, "doctor", "--json", "--config", str(stopped.config), "--state", str(stopped.state)
    )
    assert status == 1
    found = {one["check"]: one for one in json.loads(out)["findings"]}
    assert "it hangs" in found["agent"]["sentence"]
    assert {"disk", "clock", "database"} <= set(found)
