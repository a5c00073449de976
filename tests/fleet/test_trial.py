"""scripts/run --fleet from a clone: what a newcomer is shown, and does."""

import asyncio
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import Eventually

SCRIPTS = Path(__file__).parents[2] / "scripts"
ENV = {"WA_AGENT_FLEET__TTL": "6", "WA_AGENT_FLEET__MARGIN": "2"}


class Run:
    def __init__(self, process: asyncio.subprocess.Process, said: Path, port: int) -> None:
        self.process, self._said, self.port = process, said, port

    def text(self) -> str:
        return self._said.read_text(errors="replace")

    def agent(self, name: str) -> int:
        """The pid that it told."""
        found = re.search(rf"^{name}: .* agent (\d+)$", self.text(), re.MULTILINE)
        assert found is not None, self.text()
        return int(found[1])

    async def sessions(self) -> dict[str, tuple[str, str]]:
        """Session → its status and its machine, as the first dashboard's API lists them."""
        url = f"http://127.0.0.1:{self.port}/api/instances"
        async with aiohttp.ClientSession() as client, client.get(url) as answer:
            listed = (await answer.json())["instances"]
        return {it["id"]: (it["connection_status"], it["machine"]) for it in listed}

    async def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(60):
            return await self.process.wait()


def free_ports() -> int:
    """The first of the ports that it takes: n, n + 10 and n + 20, and the next of each."""
    for first in range(20_000 + os.getpid() % 5000, 30_000, 40):
        try:
            for port in (first, first + 1, first + 10, first + 11, first + 20):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[[], Awaitable[Run]]]:
    clone, runs = tmp_path / ("deep-" + "x" * 120), list[Run]()  # no socket's address holds it
    (clone / "scripts").mkdir(parents=True)
    shutil.copy(SCRIPTS / "run", clone / "scripts/run")
    shutil.copytree(SCRIPTS / "trial", clone / "scripts/trial")
    for name, told in (("venv", f"echo {sys.prefix}"), ("packages", "exit 0")):
        (clone / "scripts" / name).write_text(f"#!/bin/sh\n{told}\n")
        (clone / "scripts" / name).chmod(0o755)
    port = free_ports()

    async def begin() -> Run:
        said = tmp_path / f"said-{len(runs)}"
        with said.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                *(clone / "scripts/run", "--fleet", "2", "--listen", f"127.0.0.1:{port}"),
                stdout=out,
                stderr=out,
                env={**os.environ, **ENV},
            )
        runs.append(Run(process, said, port))
        return runs[-1]

    yield begin
    for one in runs:
        if one.process.returncode is None:
            await one.end()
        print(one.text())


@pytest.mark.slow
async def test_a_killed_machine(
    start: Callable[[], Awaitable[Run]], eventually: Eventually
) -> None:
    run = await start()
    await eventually(lambda: "Stop:" in run.text() or run.process.returncode, within=90)

    async def listed(*machines: str) -> Any:
        found = await run.sessions()
        up = all(status == "CONNECTED" for status, _ in found.values())
        return up and len(found) == 4 and sorted(it for _, it in found.values()) == [*machines]

    await eventually(lambda: listed("m1", "m1", "m2", "m2"), within=60)
    os.kill(run.agent("m2"), signal.SIGKILL)
    await eventually(lambda: listed("m1", "m1", "m1", "m1"), within=60)
    assert await run.end() == 0, run.text()

    again = await start()
    await eventually(lambda: "Stop:" in again.text() or again.process.returncode, within=90)
    await eventually(lambda: listed("m1", "m1", "m1", "m1"), within=60)
    assert await again.end() == 0, again.text()
