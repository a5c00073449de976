"""A process host whose workers are the stand-in, with every time limit cut short."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from agent.core.model import InstanceId
from agent.host.life import Limits
from agent.host.process import Places, ProcessHost
from tests.host.short_limits import FAST, STANDIN

OpenHost = Callable[..., Awaitable[ProcessHost]]


@pytest_asyncio.fixture
async def open_host(tmp_path) -> AsyncIterator[OpenHost]:
    """Open hosts on one run folder; whatever they leave is killed in the end."""
    opened: list[ProcessHost] = []

    async def open_one(
        settings: Limits = FAST,
        *,
        program=(str(STANDIN),),
        run_dir=None,
        session_root=None,
        wake=None,
    ) -> ProcessHost:
        places = Places(run_dir or tmp_path / "run", session_root or tmp_path / "sessions")
        host = await ProcessHost.open(wake or (lambda _: None), places, settings, program)
        opened.append(host)
        return host

    yield open_one
    for host in opened:
        await host.close(leave_workers=False)


@pytest_asyncio.fixture
async def killed_agent(tmp_path) -> AsyncIterator[Callable[..., Awaitable[None]]]:
    """Another process opens the host, starts workers and dies by SIGKILL."""

    async def run(*ids: str, place: Path = tmp_path) -> None:
        agent = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("short_agent.py")),
            str(place),
            *ids,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert agent.stdout is not None
        async with asyncio.timeout(60):
            assert await agent.stdout.readline() == b"started\n"
        agent.kill()
        await agent.wait()

    yield run


@pytest.fixture
def state(eventually):
    """Wait until a worker is in that state; returns its status."""

    async def wait(host: ProcessHost, id: str, state: str, *, within: float = 60.0):
        async def probe():
            return (await host.status(InstanceId(id))).state

        await eventually(probe, state, within=within)
        return await host.status(InstanceId(id))

    return wait
