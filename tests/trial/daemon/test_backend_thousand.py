"""A thousand sessions on one server: the loop turns, one outage is one finding, one return."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tests.conftest import Eventually
from tests.world.virtual import _NoManager
from tests.world.world import WorldAgent

SESSIONS = 1000
GUARD = 600.0
"""Only against hanging: a machine that is busy with other things is not the product's fault."""
LATE = 0.25
"""Seconds of the loop's delay, in 99 of 100 turns: with a fault it stands for many."""
MEMORY = 300 << 20
"""Bytes that the process may grow by, from an agent without a session."""


class Turns:
    """How late this loop, which is the agent's, comes to what is due."""

    def __init__(self) -> None:
        self._late: list[float] = []
        self._memory = psutil.Process().memory_info().rss

    async def measure(self) -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(0.01)
            self._late.append(time.monotonic() - begun - 0.01)

    def judge(self, what: str, since: float) -> None:
        late, self._late = sorted(self._late), []
        middle, most = late[len(late) // 2], late[int(len(late) * 0.99)]
        memory = psutil.Process().memory_info().rss - self._memory
        print(
            f"\n{what}: {time.monotonic() - since:.1f} s, delay p50 {middle * 1000:.0f}"
            f" p99 {most * 1000:.0f} max {late[-1] * 1000:.0f} ms, {memory >> 20} MiB more"
        )
        assert most < LATE, what
        assert memory < MEMORY, what


@asynccontextmanager
async def server() -> AsyncIterator[Any]:
    """The stand-in in a process of its own, commanded over its control port."""
    program = ("-m", "tests.standin.evolution", "--instances", str(SESSIONS))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *program, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    words = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().split()
    told = dict(zip(words[::2], words[1::2], strict=True))
    async with aiohttp.ClientSession() as client:

        async def command(verb: str, **more: object) -> Any:
            async with client.post(f"{told['control']}/{verb}", json=more) as answer:
                assert answer.status == 200, await answer.text()
                return await answer.json()

        yield told, command
    process.kill()
    await process.wait()


@pytest.mark.timeout(1800)
async def test_a_thousand_sessions_on_one_server(
    tmp_path: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdnotify.SystemdNotifier", _NoManager)
    async with server() as (told, command):
        config = tmp_path / "agent.toml"
        place = f'engine = "evolution"\nurl = "{told["url"]}"\nkey = "{told["key"]}"\n'
        table = f'\n[[backend]]\nname = "evo"\n{place}adopt = ["*"]\n'
        config.write_text('[agent]\nhost = "process"\n' + table)
        agent, turns = WorldAgent(tmp_path / "state", config), Turns()
        measuring = asyncio.create_task(turns.measure())

        async def connected() -> int:
            return int((await agent.do("GET", "/api/backends/evo"))["connected"])

        async def held_back() -> int:
            found: list[Any] = []
            for after in ("", "&after=line-0499"):
                page = await agent.do("GET", f"/api/instances?limit=500{after}")
                found += page["instances"]
            return sum(each["health"]["reason"] == "backend_down" for each in found)

        async def step(what: str, probe: Any, begin: Awaitable[Any]) -> None:
            begun = time.monotonic()
            await begin
            await eventually(probe, SESSIONS, within=GUARD)
            turns.judge(what, begun)

        await step("adopted and connected", connected, agent.start())
        begun = time.monotonic()
        await asyncio.sleep(60)
        turns.judge("at rest", begun)
        await step("away", held_back, command("fault", fault="refuse"))
        await step("back", connected, command("fault", fault=""))
        await agent.stop()
        await step("after the agent's restart", connected, agent.start())
        stats = await command("stats")
        assert stats["most_at_once"] <= 50
        touched = ("POST /instance", "DELETE", "GET /instance/connect/")
        assert not [route for route in stats["asked"] if route.startswith(touched)], stats["asked"]
        assert stats["states"] == {"open": SESSIONS}
        measuring.cancel()
        await agent.close()
