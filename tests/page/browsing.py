"""A person's browser before a real agent: what the tests of the pages have in common."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.daemon.conftest import RunningAgent
from tests.page.watcher import Watcher
from tests.ports import free_port

Listening = Callable[..., Awaitable[RunningAgent]]


@pytest.fixture
async def watcher(tmp_path: Path) -> AsyncIterator[Watcher]:
    found = await Watcher.open(tmp_path / "profile")
    yield found
    await found.close()


@pytest.fixture
async def listening(make_agent: Callable[..., RunningAgent]) -> Listening:
    """Starts an agent that listens on a port of its own, the same after a restart."""

    async def start(settings: str = "") -> RunningAgent:
        one = make_agent(settings)
        one.listen = f"127.0.0.1:{free_port()}"
        await one.start()
        return one

    return start


def pill(id: str, tone: str) -> str:
    return f"document.querySelector('[data-id={id}] .pill.{tone}')"


async def check_manners(watcher: Watcher, agent: RunningAgent) -> None:
    """Nothing of it left the agent, broke the policy, or failed unseen."""
    assert watcher.asked
    for url in watcher.asked:
        assert url.startswith((f"http://{agent.listen}/", f"ws://{agent.listen}/", "blob:")), url
        assert "wak_" not in url
        assert not url.endswith("/api/fleet"), "these agents are in none"
    assert await watcher.violations() == []
    assert watcher.complaints == []


async def picture(watcher: Watcher, name: str) -> None:
    """For people to look at, where they say (WA_PICTURES)."""
    if folder := os.environ.get("WA_PICTURES"):
        await watcher.picture(Path(folder) / f"{name}.png")
