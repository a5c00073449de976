"""An Evolution server and what stands before it → the agent's task: answers that are late, errors,
HTML, half, empty, packed, of before or none, refusals that repeat the key, at any request;
routes that a proxy does not pass, odd rows; while WhatsApp goes away and comes back, phones scan,
people delete sessions there, the server and the agent restart, and an operator asks for whatever
there is. Each case in virtual time, in a process of its own."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.trial.hostile.serving import acts
from tests.trial.hostile.serving.acts import Step

CASES = 8
draw = acts.draw


@dataclass(slots=True)
class World:
    folder: Path
    played: int = 0


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    yield World(folder)


async def play(world: World, case: list[Step]) -> None:
    world.played += 1
    program = ("-m", "tests.trial.hostile.serving", str(world.folder / str(world.played)))
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, *program, stdin=pipe, stdout=pipe)
    try:
        told, _ = await child.communicate(json.dumps(case).encode())
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode == 0, f"it ended with {child.returncode}"
    assert not told, told.decode()
