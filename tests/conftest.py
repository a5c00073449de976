"""What every test may use."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

Eventually = Callable[..., Awaitable[Any]]


@pytest.fixture
def eventually() -> Eventually:
    """Wait until `probe` (plain or async) gives what is wanted; say what it gave last otherwise."""

    async def wait(probe: Callable[[], Any], wanted: Any = True, *, within: float = 10.0) -> Any:
        deadline = time.monotonic() + within
        while True:
            found = probe()
            if inspect.isawaitable(found):
                found = await found
            if bool(found) if wanted is True else found == wanted:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"after {within} s: {found!r}, wanted {wanted!r}")
            await asyncio.sleep(0.02)

    return wait
