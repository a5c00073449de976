"""One browser with its page: begun, brought back from mild to harsh, ended in order."""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.engines.base import origin_of
from agent.engines.web.browser.page import Page
from agent.engines.web.browser.process import Browser, Program
from agent.engines.web.profile import make_durable, prepare_profile, read_note, read_page
from agent.engines.web.rules import WebSettings, profile_path
from agent.errors import EngineError

log = logging.getLogger(__name__)


# Bring a new pairing to the disk before the engine publishes it. A browser writes IndexedDB to the
# kernel when a transaction ends, and local storage up to a second later. A pairing needs both:
# until then a killed browser comes up with a new code.


_MARK_LIMIT = 8.0
"""Seconds for a mark: a record may end at a block's border, where no search finds it whole."""
_EVERY = 0.05
_FILE_LIMIT = 64 * 1024 * 1024
_STORE = Path("Default") / "Local Storage"


async def flush_pairing(page: Page, session: Path) -> bool:
    """True when everything that the page stored so far is on the disk; False: not proved."""
    mark = os.urandom(12).hex()
    try:
        async with asyncio.timeout(_MARK_LIMIT):
            if await page.ask("mark", mark, within=_MARK_LIMIT) is not True:
                return False
            await _wait_for(mark, profile_path(session))
    except (EngineError, TimeoutError) as error:
        log.warning("cannot watch a new pairing reach the disk: %s", error)
        return False
    await asyncio.to_thread(make_durable, session, lambda: None)
    return True


async def leave_page(page: Page, session: Path, *, within: float) -> None:
    """Close WhatsApp's page and wait until what it stored is written, before the browser ends:
    Chromium dies in about one of fifty of its own orderly ends (SIGTRAP, most often in its first
    second).
    """
    mark = os.urandom(12).hex()
    with suppress(EngineError, TimeoutError):
        async with asyncio.timeout(within):
            marked = await page.ask("mark", mark, within=within) is True
            # The browser then writes and closes what the page stored.
            await page.call("Page.navigate", {"url": "about:blank"}, within=within)
            if marked:
                await _wait_for(mark, profile_path(session))


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


LOAD = 50.0
"""Seconds until WhatsApp's server must have answered with the page."""
SERVE = 10.0
LEAVE = 3.0
PROFILE_TRIES = 30


@dataclass(frozen=True, slots=True)
class Needs:
    """What a start takes from the machine: the browser, and what runs in each document."""

    program: Program
    script: str
    """Large, and needed for a moment only."""


@dataclass(slots=True)
class Session:
    """At most one browser at a time, on the one profile in `folder`."""

    folder: Path
    settings: WebSettings
    needs: Callable[[], Needs]
    word: Callable[[str, Mapping[str, Any]], None]
    """Hears the page's words."""
    gone: Callable[[int, str], None]
    """Hears the end of the browser: its exit status and last words."""
    _browser: Browser | None = None
    _page: Page | None = None
    _closing: "asyncio.Task[bool] | None" = None

    @property
    def alive(self) -> bool:
        return self._browser is not None and self._browser.alive and self._page is not None

    @property
    def page(self) -> Page:
        """EngineError while there is none."""
        if self._page is None or self._browser is None or not self._browser.alive:
            raise EngineError("cannot use the page: no browser runs", code="not_running")
        return self._page

    async def open(self) -> None:
        """A browser with an empty page that listens; EngineError says what failed."""
        needs = await asyncio.to_thread(self.needs)
        await self._take_profile()
        pinned = await asyncio.to_thread(
            read_page, self.folder, self.settings.page, read_note(self.folder)
        )
        browser = await Browser.start(
            needs.program,
            profile_path(self.folder),
            proxy=self.settings.proxy,
            loopback=self.settings.url.startswith("http://"),
        )
        self._browser = browser
        browser.ended.add_done_callback(lambda ended: self._ended(browser, ended.result()))
        self._page = await Page.open(browser.debugger, needs.script, browser.version, self.word)
        if pinned is not None:
            await self._page.serve(pinned, within=SERVE)

    async def _take_profile(self) -> None:
        """A browser that was killed a moment ago may not have let go of it yet."""
        for left in range(PROFILE_TRIES, -1, -1):
            try:
                await asyncio.to_thread(prepare_profile, self.folder)
                return
            except EngineError as error:
                if error.code != "profile_in_use" or not left:
                    raise
            await asyncio.sleep(0.1)

    async def load(self, *, past_caches: bool) -> None:
        """`past_caches`: as a browser that never saw this page, with the pairing that it has."""
        await self.page.loading.watch()
        if past_caches:
            await self.page.loading.forget_caches(origin_of(self.settings.url))
        await self.page.navigate(self.settings.url, within=LOAD)

    async def close(self) -> bool:
        """End the browser so that its profile is whole; True when it ended by itself. Cancelling
        the caller does not stop that: the next caller waits for the same end."""
        if self._closing is None or self._closing.done():
            self._closing = asyncio.create_task(self._close(), name="close the browser")
        return await asyncio.shield(self._closing)

    async def _close(self) -> bool:
        page = self._page
        browser = self._forget()
        if browser is None:
            return True
        if page is not None and browser.alive:
            await leave_page(page, self.folder, within=LEAVE)
        return await browser.close()

    async def kill(self) -> None:
        """End it at once, whatever it does."""
        browser = self._forget()
        if browser is not None:
            await browser.end()

    def _forget(self) -> Browser | None:
        browser, self._browser = self._browser, None
        if self._page is not None:
            self._page.close()
            self._page = None
        return browser

    def _ended(self, browser: Browser, status: int) -> None:
        # One that was forgotten ends because we wanted it.
        if browser is self._browser:
            self._forget()
            self.gone(status, browser.last_words())
