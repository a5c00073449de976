"""One browser with its page: begun, brought back from mild to harsh, ended in order."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.engines.settings import origin_of
from agent.engines.web.browser.arguments import Program
from agent.engines.web.browser.page import Page
from agent.engines.web.browser.process import Browser
from agent.engines.web.files import profile_path
from agent.engines.web.profile.folder import Lock, prepare_profile
from agent.engines.web.profile.notes import read_note, read_page
from agent.engines.web.save_pairing import leave_page
from agent.engines.web.settings import WebSettings
from agent.errors import EngineError

log = logging.getLogger(__name__)

LOAD = 50.0
"""Seconds until WhatsApp's server must have answered with the page."""
RELOAD = 10.0
LEAVE = 3.0
PROFILE_WAIT = 3.0


@dataclass(frozen=True, slots=True)
class Listener:
    """Whom a session tells: the page's words, and the end of the browser with its exit status."""

    word: Callable[[str, Mapping[str, Any]], None]
    gone: Callable[[int, str], None]


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
    listener: Listener
    _browser: Browser | None = None
    _page: Page | None = None

    @property
    def alive(self) -> bool:
        return self._browser is not None and self._browser.alive and self._page is not None

    @property
    def page(self) -> Page:
        """EngineError while there is none."""
        if self._page is None or self._browser is None or not self._browser.alive:
            raise EngineError("cannot use the page: no browser runs", code="not_running")
        return self._page

    @property
    def browser_pid(self) -> int:
        return self._browser.pid if self._browser is not None else 0

    async def open(self) -> None:
        """A browser with an empty page that listens; EngineError says what failed."""
        needs = await asyncio.to_thread(self.needs)
        lock = await self._take_profile()
        if lock != "free":
            log.info("removed the lock that another browser left in the profile (%s)", lock)
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
        browser.on_end(lambda status: self._ended(browser, status))
        self._page = await Page.open(
            browser.debugger, needs.script, browser.version, self.listener.word
        )
        if pinned is not None:
            await self._page.serve(pinned, within=RELOAD)

    async def _take_profile(self) -> Lock:
        """A browser that was killed a moment ago may not have let go of it yet."""
        deadline = asyncio.get_running_loop().time() + PROFILE_WAIT
        while True:
            try:
                return await asyncio.to_thread(prepare_profile, self.folder)
            except EngineError as error:
                late = asyncio.get_running_loop().time() >= deadline
                if error.code != "profile_in_use" or late:
                    raise
            await asyncio.sleep(0.1)

    async def load(self) -> None:
        await self.page.loading.watch()
        await self.page.navigate(self.settings.url, within=LOAD)

    async def load_past_caches(self) -> None:
        """As a browser that never saw this page: caches forgotten, the service worker passed by."""
        await self.page.loading.forget_caches(origin_of(self.settings.url))
        await self.page.navigate(self.settings.url, within=LOAD)

    async def reload(self) -> bool:
        """The mild cure; False when the browser does not even take that."""
        try:
            page = self.page
            with suppress(EngineError):  # a page that crashed or hangs does not answer
                await page.loading.watch(within=0.1 if page.crashed else 1.0)
            # A page that hangs cannot be asked to leave, only its browser can be told.
            await page.navigate(self.settings.url, within=RELOAD)
            await page.evaluate("1", within=RELOAD)
        except EngineError as error:
            log.warning("%s", error)
            return False
        return True

    async def close(self, within: float = 10.0) -> bool:
        """End the browser so that its profile is whole; True when it ended by itself."""
        page = self._page
        browser = self._forget()
        if browser is None:
            return True
        if page is not None and browser.alive:
            await leave_page(page, self.folder, within=LEAVE)
        return await browser.close(within)

    async def kill(self) -> None:
        """End it at once, whatever it does."""
        browser = self._forget()
        if browser is not None:
            browser.kill()
            await asyncio.wait({browser.ended}, timeout=5)
            await browser.close(0.1)

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
            self.listener.gone(status, browser.last_words())
