"""Bring a new pairing to the disk before the engine publishes it.

A browser writes IndexedDB to the kernel when a transaction ends, and local storage up to a second
later. A pairing needs both: until then a killed browser comes up with a new code.
"""

import asyncio
import logging
import os
from contextlib import suppress
from pathlib import Path

from agent.engines.web.browser.page import Page
from agent.engines.web.files import profile_path
from agent.engines.web.profile.folder import make_durable
from agent.errors import EngineError

log = logging.getLogger(__name__)

_MARKS = 3
_MARK_LIMIT = 4.0
"""Seconds for one mark: a record may end at a block's border, where no search finds it whole."""
_EVERY = 0.05
_FILE_LIMIT = 64 * 1024 * 1024
_STORE = Path("Default") / "Local Storage"


async def flush_pairing(page: Page, session: Path) -> bool:
    """True when everything that the page stored so far is on the disk; False: not proved."""
    try:
        proved = await _local_storage_is_written(page, profile_path(session))
    except EngineError as error:
        log.warning("cannot watch a new pairing reach the disk: %s", error)
        return False
    if proved:
        await asyncio.to_thread(make_durable, session, lambda: None)
    return proved


async def leave_page(page: Page, session: Path, *, within: float) -> None:
    """Close WhatsApp's page and wait until what it stored is written, before the browser ends:
    Chromium dies in about one of fifty of its own orderly ends (SIGTRAP, most often in its first
    second).
    """
    mark = os.urandom(12).hex()
    with suppress(EngineError, TimeoutError):
        async with asyncio.timeout(within):
            marked = await page.ask("mark", mark, within=within) is True
            await page.leave(within=within)
            if marked:
                await _wait_for(mark, profile_path(session))


async def _local_storage_is_written(page: Page, profile: Path) -> bool:
    for _ in range(_MARKS):
        mark = os.urandom(12).hex()
        if await page.ask("mark", mark, within=_MARK_LIMIT) is not True:
            return False
        try:
            async with asyncio.timeout(_MARK_LIMIT):
                await _wait_for(mark, profile)
        except TimeoutError:
            continue
        await page.ask("mark", "", within=_MARK_LIMIT)
        return True
    return False


async def _wait_for(mark: str, profile: Path) -> None:
    while not await asyncio.to_thread(holds_mark, profile, mark):  # noqa: ASYNC110 - only to be read
        await asyncio.sleep(_EVERY)


def holds_mark(profile: Path, mark: str) -> bool:
    """Whether a file of the profile's local storage holds this text."""
    sought = (mark.encode(), mark.encode("utf-16-le"))
    for path in (profile / _STORE).rglob("*"):
        try:
            if path.is_symlink() or not path.is_file():
                continue
            with path.open("rb") as file:
                content = file.read(_FILE_LIMIT)
        except OSError:  # gone since it was listed
            continue
        if any(bytes_of in content for bytes_of in sought):
            return True
    return False
