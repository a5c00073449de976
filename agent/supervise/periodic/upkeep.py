"""Upkeep on a clock: the trash is emptied, the database is checked and copied."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from agent.clock import boot_now
from agent.errors import WaError
from agent.store.database import Store
from agent.vault.trash import sweep

log = logging.getLogger(__name__)

SWEEP_EVERY = 3600.0
FIRST_COPY = 300.0
CHECK_EVERY = 86400.0


async def sweep_trash(session_root: Path, days: Callable[[], float]) -> None:
    swept = boot_now()
    while True:
        await asyncio.sleep(SWEEP_EVERY)
        now, kept = boot_now(), days()
        try:
            gone = await asyncio.to_thread(sweep, session_root, kept * 86400, now - swept)
        except WaError as error:
            log.warning("%s", error)
            continue
        swept = now
        for name in gone:
            log.info("removed %s from the trash, where it was for %g days", name, kept)


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
