"""A thousand sessions on one server: one worker, every check in time, one outage, one return."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

import aiohttp
import psutil
import pytest
from tests.daemon.test_backends import reload

from tests.daemon.conftest import RunningAgent

SESSIONS = 1000
INTERVAL = 5.0
RARELY = 60.0
"""Between two checks of a session until all are adopted: nobody looks at those checks."""
BACK_RATE = 200
GUARD = 300.0
"""Only against hanging: a machine that is busy with other things is not the product's fault."""
SETTINGS = f"""\
[agent]
host = "process"

[start]
stagger = 0
spread = 0

[health]
interval = {RARELY}
timeout = 5

[backends]
patience = 1.0
back_rate = {BACK_RATE}
"""


class Server:
    """The stand-in in a process of its own, commanded over its control port."""

    def __init__(self, url: str, control: str, key: str, client: aiohttp.ClientSession) -> None:
        self.url, self.key = url, key
        self._control, self._client = control, client

    async def command(self, verb: str, **told: object) -> dict[str, Any]:
        async with self._client.post(f"{self._control}/{verb}", json=told) as answer:
            found: dict[str, Any] = await answer.json()
            assert answer.status == 200, found
            return found


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    program = ("-m", "tests.standin.evolution", "--fast", "--instances", str(SESSIONS))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *program, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    words = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().split()
    told = dict(zip(words[::2], words[1::2], strict=True))
    async with aiohttp.ClientSession() as client:
        yield Server(told["url"], told["control"], told["key"], client)
    process.kill()
    await process.wait()


class Fleet:
    def __init__(self, agent: RunningAgent, server: Server) -> None:
        self.agent, self.server = agent, server

    async def rows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            page = await self.agent.do("GET", f"/api/instances?limit=500{after}")
            found += page["instances"]
            if not page.get("next"):
                return found
            after = f"&after={page['next']}"

    async def connected(self) -> int:
        return int((await self.agent.do("GET", "/api/backends/evo"))["connected"])

    async def held(self) -> int:
        return int((await self.agent.do("GET", "/api/backends/evo"))["held"])

    async def held_back(self) -> int:
        told = [row["health"] for row in await self.rows()]
        return sum(one["reason"] == "backend_down" for one in told)

    async def local_is_healthy(self) -> bool:
        return bool((await self.agent.show("local"))["health"]["verdict"] == "healthy")

    async def connected_since(self) -> list[datetime]:
        """Of each session there; empty while one of them is shown in another status."""
        rows = [row for row in await self.rows() if row["id"] != "local"]
        since = [row["since"] for row in rows if row["connection_status"] == "CONNECTED"]
        return [datetime.fromisoformat(each) for each in since] if len(since) == len(rows) else []

    async def asked(self, route: str) -> int:
        return int((await self.server.command("stats"))["asked"].get(route, 0))


STATE = "GET /instance/connectionState"


@pytest.mark.timeout(900)
async def test_a_thousand_sessions_on_one_server(
    make_agent: Callable[..., RunningAgent], server: Server, eventually: Any
) -> None:
    table = f'\n[[backend]]\nname = "evo"\nengine = "evolution"\nurl = "{server.url}"\n'
    agent = make_agent(table + f'key = "{server.key}"\nadopt = ["*"]\n', base=SETTINGS)
    begun = time.monotonic()
    await agent.start()
    fleet = Fleet(agent, server)
    await agent.create("local")
    await eventually(fleet.held, SESSIONS, within=600)  # they are adopted one after the other
    await eventually(fleet.connected, SESSIONS, within=GUARD)
    print(f"\n{SESSIONS} adopted and connected in {time.monotonic() - begun:.1f} s")

    notes = list((agent.state / "run-backends").glob("*/run.json"))
    assert len(notes) == 1, "one worker for them all"
    worker = psutil.Process(int(json.loads(notes[0].read_text())["pid"]))
    print(f"its worker: {worker.memory_full_info().pss >> 20} MiB PSS, {worker.num_fds()} files")
    often = agent.config.read_text().replace(f"interval = {RARELY}", f"interval = {INTERVAL}")
    reload(agent, often)
    await eventually(lambda: "settings read again" in agent.log.read_text())
    await _check_that_checks_are_in_time(fleet, worker, eventually)

    # It dies: one finding, inherited by all; no session tries by itself.
    local = await agent.pid("local")
    await server.command("fault", fault="refuse")
    await eventually(fleet.held_back, SESSIONS, within=GUARD)
    rows = {row["id"]: row for row in await fleet.rows()}
    # A first try that was connected for less than a minute still counts; no other was made.
    assert {row["attempts"] for row in rows.values()} <= {0, 1}
    assert await agent.pid("local") == local
    await eventually(fleet.local_is_healthy)

    # It is back: all of them again, in turns.
    await server.command("fault", fault="")
    await eventually(fleet.connected, SESSIONS, within=GUARD)
    since = await eventually(fleet.connected_since, within=GUARD)
    spread = (max(since) - min(since)).total_seconds()
    print(f"all back within {spread:.1f} s")
    assert spread > SESSIONS / BACK_RATE / 2, "they came back in one burst"
    stats = await server.command("stats")
    assert stats["most_at_once"] <= 50
    touched = ("POST /instance", "DELETE", "GET /instance/connect/")
    assert not [route for route in stats["asked"] if route.startswith(touched)], stats["asked"]
    assert stats["states"] == {"open": SESSIONS}


async def _check_that_checks_are_in_time(
    fleet: Fleet, worker: psutil.Process, eventually: Any
) -> None:
    """What is shown was proved within the last two turns of a thousand checks, so no session waits
    while others are checked again; and one core is enough for the worker, and one for the agent,
    to check each session in each interval. A turn takes as long as the machine needs."""
    assert fleet.agent.process is not None
    agent = psutil.Process(fleet.agent.process.pid)
    first, spent = await fleet.asked(STATE), (used(worker), used(agent))
    begun: list[float] = []
    for turn in range(4):
        wanted = await fleet.asked(STATE) + SESSIONS
        begun.append(time.time())
        await eventually(lambda n=wanted: _asked_more(fleet, n), within=GUARD)
        # Where it has just caught up, two turns may be shorter than its time between two checks.
        since = min(begun[max(turn - 1, 0)], time.time() - 2 * INTERVAL)
        oldest = min(row["proved"] for row in await fleet.rows() if row["id"] != "local")
        before = since - datetime.fromisoformat(oldest).timestamp()
        print(f"turn {turn} took {time.time() - begun[-1]:.1f} s")
        assert turn == 0 or before <= 0, f"a proof is {before:.1f} s older than two turns"
    checks = await fleet.asked(STATE) - first
    for name, process, before in zip(("worker", "agent"), (worker, agent), spent, strict=True):
        each = (used(process) - before) / checks
        print(f"its {name} used {1000 * each:.2f} ms of a core for a check")
        assert each < INTERVAL / SESSIONS, f"the {name} cannot check all of them in an interval"


def used(process: psutil.Process) -> float:
    """Processor seconds."""
    return float(sum(process.cpu_times()[:2]))


async def _asked_more(fleet: Fleet, than: int) -> bool:
    return await fleet.asked(STATE) >= than
