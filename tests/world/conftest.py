"""Each test of this folder runs in virtual time, with default settings unless it names others."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.clocks import stopped
from tests.conftest import Eventually, waiting
from tests.world.virtual import Loop, virtual_time
from tests.world.world import WorldAgent

LONGEST = 4 * 3600.0
"""Virtual seconds of a test: what waits for longer waits for ever."""
BASE = '[agent]\nhost = "process"\n'


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"virtual": Loop}


@pytest.fixture(autouse=True)
def virtual() -> Iterator[None]:
    with virtual_time():
        stopped().most = LONGEST
        yield


@pytest.fixture
async def make_agent(tmp_path: Path) -> AsyncIterator[Callable[..., WorldAgent]]:
    made: list[WorldAgent] = []

    def make(settings: str = "", name: str = "state") -> WorldAgent:
        config = tmp_path / f"{name}.toml"
        config.write_text(BASE + settings)
        made.append(WorldAgent(tmp_path / name, config))
        return made[-1]

    yield make
    for one in reversed(made):
        await one.close()


@pytest.fixture
async def agent(make_agent: Callable[..., WorldAgent]) -> WorldAgent:
    one = make_agent()
    await one.start()
    return one


@pytest.fixture
def eventually() -> Eventually:
    """In virtual time; it asks less often the longer it waits."""
    return waiting(900.0, lambda waited, _asking: max(0.5, waited / 50))
