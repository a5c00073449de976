"""Without archives, what other wings bring in with them is refused before anything is done."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from agent.wing import wings
from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent, make_agent
from tests.wings.taken_away import program_without

__all__ = ["make_agent"]


async def test_a_desk_and_a_change_of_engine_are_refused(
    make_agent: Callable[..., RunningAgent], tmp_path: Path, eventually: Eventually
) -> None:
    taken = [wing for wing in wings() if wing.name == "archives"]
    without = program_without(taken, tmp_path / "program")
    agent = make_agent()
    await agent.start(without)
    await agent.create("shop")
    await eventually(lambda: agent.status("shop"), "CONNECTED")
    status, answer = await agent.ask("POST", "/api/instance/shop/invite")
    assert (status, answer["error"]) == (409, "no_archives")
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", "change-engine", "shop", "--to", "baileys"),
        *("--socket", str(agent.state / "api.sock")),
        env={**os.environ, **without},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await command.communicate()
    assert (command.returncode, b"takes no archives" in said) == (4, True), said
    assert await agent.status("shop") == "CONNECTED", "it was not stopped for nothing"
