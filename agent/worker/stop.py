"""Ending a worker in order: prepare, save, close, each bounded in time.

A save that goes on gets more time from the manager; a second signal cuts the waiting
short, never the saving.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from agent.clock import boot_now
from agent.engines.base import Engine
from agent.host.notify import Notifier
from agent.worker.reports import Reports

log = logging.getLogger(__name__)


PREPARE, SAVE, CLOSE = 3.0, 20.0, 5.0
"""Seconds of each step, of a save without progress; together below the unit's limit of a stop."""


async def stop_in_order(
    engine: Engine, reports: Reports, notifier: Notifier, hurry: asyncio.Event
) -> bool:
    """Return True when all was saved and closed."""
    notifier.send("STOPPING=1", "STATUS=stopping: preparing")
    await _bounded("prepare", engine.prepare_stop(), PREPARE, hurry)
    notifier.send("STATUS=stopping: saving")
    saved = await _save(engine, reports, notifier)
    notifier.send("STATUS=stopping: closing")
    closed = await _bounded("close", engine.close(), CLOSE, hurry)
    return saved and closed


async def _save(engine: Engine, reports: Reports, notifier: Notifier) -> bool:
    task = asyncio.ensure_future(engine.save())
    deadline, seen = boot_now() + SAVE, reports.progressed_at
    while not task.done() and boot_now() < deadline:
        await asyncio.wait({task}, timeout=min(1.0, max(0.0, deadline - boot_now())))
        if reports.progressed_at > seen:
            seen = reports.progressed_at
            deadline = seen + SAVE
            notifier.send(f"EXTEND_TIMEOUT_USEC={round((SAVE + CLOSE) * 1e6)}")
    return await _ended("save", task)


async def _bounded(
    what: str, work: Coroutine[Any, Any, None], limit: float, hurry: asyncio.Event
) -> bool:
    task = asyncio.ensure_future(work)
    hurried = asyncio.ensure_future(hurry.wait())
    # The first turn is always given: what needs no waiting is done even in a hurry.
    await asyncio.wait({task}, timeout=0.05)
    await asyncio.wait({task, hurried}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    return await _ended(what, task)


async def _ended(what: str, task: asyncio.Future[None]) -> bool:
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)
        log.error("cannot %s in time", what)
        return False
    if (error := task.exception()) is not None:
        log.error("cannot %s: %s", what, error)
    return error is None
