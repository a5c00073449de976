"""Upkeep on a clock: the trash is emptied, the database is checked and copied."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from agent.clock import wall_at_boot
from agent.errors import WaError
from agent.store.database import Store
from agent.vault.trash import sweep

log = logging.getLogger(__name__)

SWEEP_EVERY = 3600.0
FIRST_COPY = 300.0
CHECK_EVERY = 86400.0
CLOCK_JUMP = 3600.0
"""A wall clock that ran so far ahead of the boot clock was set: it tells no age."""


async def sweep_trash(session_root: Path, days: Callable[[], float]) -> None:
    begun = wall_at_boot()
    while True:
        await asyncio.sleep(SWEEP_EVERY)
        ahead = wall_at_boot() - begun
        if ahead > CLOCK_JUMP:
            log.warning("the clock jumped %.0f s ahead: the agent keeps the trash as it is", ahead)
            continue
        kept = days()
        try:
            gone = await asyncio.to_thread(sweep, session_root, time.time() - kept * 86400)
        except WaError as error:
            log.warning("%s", error)
            continue
        for name in gone:
            log.info("removed %s from the trash: older than %g days", name, kept)


async def check_database(store: Store, copy: Path) -> None:
    """The full check, which each start makes too, and a verified copy, once a day."""
    await asyncio.sleep(FIRST_COPY)
    while True:
        problem = await store.check()
        if problem == "ok":
            try:
                await store.copy_to(copy)
            except WaError as error:
                log.error("%s", error)
        else:
            log.error(
                "the database is damaged: %s; the agent rebuilds it at its next start", problem
            )
        await asyncio.sleep(CHECK_EVERY)
