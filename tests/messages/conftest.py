"""Virtual time for each test of this room."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from tests.world import virtual


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"virtual": virtual.Loop}


@pytest.fixture(autouse=True)
def virtual_clocks() -> Iterator[None]:
    with virtual.virtual_time():
        yield
