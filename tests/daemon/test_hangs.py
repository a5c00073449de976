"""An agent that hangs: the kernel still accepts for it, and nothing may wait for it for long."""

import asyncio
import json
import os
import signal

import pytest

from tests.daemon.conftest import HUNG, cli


@pytest.fixture
def stopped(agent):
    os.kill(agent.process.pid, signal.SIGSTOP)
    yield agent
    os.kill(agent.process.pid, signal.SIGCONT)


COMMANDS = ("health a", "list", "stop a", "events", "why a", "events -f")


async def test_commands_say_within_seconds_that_the_agent_hangs(stopped):
    asked = (cli(stopped, *it.split(), hangs=True) for it in COMMANDS)
    for status, said in await asyncio.gather(*asked):
        assert (status, HUNG in said) == (5, True), said


async def test_the_doctor_tells_what_it_finds_without_the_agent(stopped):
    where = ("--config", stopped.config, "--state", stopped.state)
    status, out = await cli(stopped, "doctor", "--json", *where, hangs=True)
    assert status == 1
    found = {one["check"]: one for one in json.loads(out)["findings"]}
    assert "it hangs" in found["agent"]["sentence"]
    assert {"disk", "clock", "database"} <= set(found)
