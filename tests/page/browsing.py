"""A person's browser before a real agent: what the tests of the pages have in common."""

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.daemon.conftest import SETTINGS, RunningAgent, make_agent
from tests.page.watcher import Watcher
from tests.ports import free_port

__all__ = ["make_agent"]


@pytest.fixture
async def watcher(tmp_path: Path) -> AsyncIterator[Watcher]:
    found = await Watcher.open(tmp_path / "profile")
    yield found
    await found.close()


@pytest.fixture
async def listening(make_agent: Callable[..., RunningAgent]) -> Callable[..., RunningAgent]:
    """Makes an agent that listens on a port of its own, the same after a restart."""

    def make(settings: str = "", base: str = SETTINGS) -> RunningAgent:
        one = make_agent(settings, base=base)
        one.listen = f"127.0.0.1:{free_port()}"
        return one

    return make


def pill(id: str, tone: str) -> str:
    return f"document.querySelector('[data-id={id}] .pill.{tone}')"


async def check_manners(watcher: Watcher, agent: RunningAgent) -> None:
    """Nothing of it left the agent, broke the policy, or failed unseen."""
    assert watcher.asked
    for url in watcher.asked:
        ours = url.startswith((f"http://{agent.listen}/", f"ws://{agent.listen}/", "blob:"))
        assert ours, url
        assert "wak_" not in url
    assert await watcher.violations() == []
    assert watcher.complaints == []


async def picture(watcher: Watcher, name: str) -> None:
    """For people to look at, where they say (WA_PICTURES)."""
    if folder := os.environ.get("WA_PICTURES"):
        await watcher.picture(Path(folder) / f"{name}.png")
