"""Each test of this folder runs in virtual time, with default settings unless it names others."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clocks import stopped
from tests.conftest import Eventually
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
    """Wait, in virtual time, until `probe` gives what is wanted; else say what it gave last. It
    asks less often the longer it waits."""

    async def wait(probe: Callable[[], Any], wanted: Any = True, *, within: float = 900.0) -> Any:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while True:
            found = probe()
            if inspect.isawaitable(found):
                found = await found
            if bool(found) if wanted is True else found == wanted:
                return found
            waited = loop.time() - begun
            assert waited < within, f"after {within} s: {found!r}, wanted {wanted!r}"
            await asyncio.sleep(max(0.5, waited / 50))

    return wait
