"""scripts/run from a clone: who is greeted, and what the first folder looks like."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.cli.client import Client
from agent.errors import WaError
from tests.conftest import Eventually
from tests.ports import free_port

SCRIPTS = Path(__file__).parents[3] / "scripts"
GREETING = "Dashboard:  http://"


class Run:
    def __init__(self, process: asyncio.subprocess.Process, said: Path) -> None:
        self.process = process
        self.said = said

    def text(self) -> str:
        # A code's last character may be written by half.
        return self.said.read_text(errors="replace")

    async def ended(self) -> int:
        async with asyncio.timeout(60):
            return await self.process.wait()


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Begins it in a clone that has its packages already."""
    clone = tmp_path / "clone"
    (clone / "scripts").mkdir(parents=True)
    (clone / "scripts/run").write_bytes((SCRIPTS / "run").read_bytes())
    (clone / "scripts/run").chmod(0o755)
    (clone / "scripts/venv").write_text(f"#!/bin/sh\necho {sys.prefix}\n")
    (clone / "scripts/venv").chmod(0o755)
    runs: list[Run] = []

    async def begin(*more: str) -> Run:
        said = tmp_path / f"said-{len(runs)}"
        listen = f"127.0.0.1:{free_port()}"
        env = {name: value for name, value in os.environ.items() if not name.startswith("WA_")}
        with said.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                clone / "scripts/run",
                *("--listen", listen, *more),
                stdout=out,
                stderr=out,
                umask=0o022,
                env=env,
                cwd=tmp_path,
            )
        runs.append(Run(process, said))
        return runs[-1]

    yield begin
    for one in runs:
        if one.process.returncode is None:
            one.process.send_signal(signal.SIGINT)
            await one.ended()


async def doctor(state: Path) -> dict[str, Any]:
    """Findings of `wa-agent doctor` by check, asked as the greeting says."""
    process = await asyncio.create_subprocess_exec(
        *(Path(sys.prefix) / "bin/wa-agent", "doctor", "--json"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "WA_AGENT_SOCKET": str(state / "api.sock")},
        cwd="/",
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    return {one["check"]: one for one in json.loads(out)["findings"]}


async def test_the_first_run_greets_and_its_folder_is_closed_to_other_users(
    start: Callable[..., Any], tmp_path: Path, eventually: Eventually
) -> None:
    state = tmp_path / ("new-" + "x" * 120) / "state"  # longer than a socket's address
    run = await start("--state", str(state))
    await eventually(lambda: GREETING in run.text(), within=60)
    assert "Scan it:" in run.text()
    assert state.stat().st_mode & 0o777 == 0o700
    found = await doctor(state)
    assert found["state"]["level"] == "ok", found["state"]
    assert found["agent"]["level"] == "ok", found["agent"]


async def test_a_state_in_use_is_not_greeted_for_and_one_that_was_there_keeps_its_rights(
    start: Callable[..., Any], tmp_path: Path, eventually: Eventually
) -> None:
    (state := tmp_path / "state").mkdir(mode=0o755)
    first = await start("--state", str(state))
    await eventually(lambda: GREETING in first.text(), within=60)
    second = await start("--state", str(state))
    assert await second.ended() == 75
    assert "another agent runs on it" in second.text()
    assert GREETING not in second.text()
    assert state.stat().st_mode & 0o777 == 0o755


async def test_it_runs_with_a_file_of_ones_own(
    start: Callable[..., Any], tmp_path: Path, eventually: Eventually
) -> None:
    own, state = tmp_path / "own.toml", tmp_path / "state"
    own.write_text(
        '[agent]\nhost = "process"\n'
        '[[instance]]\nid = "mine"\nengine = "sandbox"\nenabled = false\n'
    )
    await start("--state", str(state), "--config", "own.toml")

    async def instances() -> list[str]:
        with contextlib.suppress(WaError):
            client = Client(sockets=(state / "api.sock",))
            return [one["id"] for one in await asyncio.to_thread(lambda: [*client.instances()])]
        return []

    await eventually(instances, ["mine"], within=60)


async def test_s8_a_taken_port_is_said_instead_of_a_dashboard(
    start: Callable[..., Any], tmp_path: Path, eventually: Eventually
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        run = await start("--state", str(tmp_path / "state"), "--listen", address)
        await eventually(lambda: "No HTTP yet" in run.text(), within=60)
    assert GREETING not in run.text()


async def test_w12_the_agent_has_no_dead_child_after_the_greeting(
    start: Callable[..., Any], tmp_path: Path, eventually: Eventually
) -> None:
    run = await start("--state", str(tmp_path / "state"))
    await eventually(lambda: "Stop:" in run.text(), within=60)

    def dead() -> list[str]:
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, parent = stat.read_text().rpartition(")")[2].split()[:2]
                if (state, parent) == ("Z", str(run.process.pid)):
                    found.append(stat.parent.name)
        return found

    def greets() -> bool:
        lines = Path("/proc").glob("[0-9]*/cmdline")
        wanted = str(tmp_path / "clone/scripts/run").encode()
        for line in lines:
            with contextlib.suppress(OSError):
                if wanted in line.read_bytes():
                    return True
        return False

    await eventually(lambda: not greets())
    await eventually(dead, [])  # its end is read a moment after it


async def test_s9_a_first_run_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """No half environment, which the next run would take for a whole one, and no state folder."""
    clone = tmp_path / "clone"
    (clone / "scripts/locks").mkdir(parents=True)
    for name in ("run", "venv", "packages", "locks/run.txt"):
        shutil.copy(SCRIPTS / name, clone / "scripts" / name)
    shutil.copy(SCRIPTS.parent / "pyproject.toml", clone)
    before = sorted(clone.rglob("*"))
    process = await asyncio.create_subprocess_exec(
        clone / "scripts/run",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"},
    )
    async with asyncio.timeout(120):
        said, _ = await process.communicate()
    assert process.returncode not in (0, None), said
    assert b"installing the run packages into" in said, "it had begun"
    assert sorted(clone.rglob("*")) == before
