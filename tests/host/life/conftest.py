"""Each test of this folder runs in virtual time, with the limits that the settings have."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from tests.world.virtual import Loop, virtual_time


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"virtual": Loop}


@pytest.fixture(autouse=True)
def virtual() -> Iterator[None]:
    with virtual_time():
        yield
