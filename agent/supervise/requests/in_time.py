"""An answer at its deadline at the latest, while the work that was asked for goes on."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
GRACE = 0.2
"""Seconds for work that ends at the deadline by itself to say how far it came."""

_working: set[asyncio.Task[Any]] = set()
"""The loop itself keeps no task that nothing waits for."""


async def in_time(work: Coroutine[Any, Any, T], deadline: float) -> T | None:
    """None: it goes on without its caller. `deadline` is of time.monotonic()."""
    task = asyncio.create_task(work, name="asked for")
    _working.add(task)
    task.add_done_callback(_over)
    await asyncio.wait({task}, timeout=max(deadline - time.monotonic(), 0.0) + GRACE)
    return task.result() if task.done() else None


def _over(task: asyncio.Task[Any]) -> None:
    _working.discard(task)
    if not task.cancelled():
        task.exception()  # read here: its caller may have had its answer before
