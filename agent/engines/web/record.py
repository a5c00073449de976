"""The engine's records of a session: its note, the page that works, evidence of failures."""

import asyncio
import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.engines.web.browser.page import Page
from agent.engines.web.profile.notes import Note, keep_diagnostics, keep_page, read_note, write_note
from agent.engines.web.view import SessionView
from agent.errors import EngineError

log = logging.getLogger(__name__)

_WITHIN = 8.0


class Record:
    """Never raises: a session that lives is worth more than a note about it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._note = read_note(folder)
        self._written = self._note
        self._writing = asyncio.Lock()
        self._kept_of = ""

    def connected(self, account: str) -> None:
        other = account and self._note.account and account != self._note.account
        device = "" if other else self._note.device
        device = device or os.urandom(8).hex()
        self._note = replace(self._note, paired=True, account=account, device=device)

    def unpaired(self) -> None:
        self._note = Note(page=self._note.page)

    @property
    def paired(self) -> bool:
        return self._note.paired

    @property
    def changed(self) -> bool:
        return self._note != self._written

    async def write(self) -> None:
        """Bring the note to the disk as it is by then."""
        async with self._writing:
            if not self.changed:
                return
            self._written = self._note
            try:
                await asyncio.to_thread(write_note, self._folder, self._written)
            except OSError as error:
                log.error("cannot write the session's note: %s", error)

    def wants_page(self, version: str) -> bool:
        """Whether this version's page, now connected, is to be kept; said once for each."""
        if not version or version in (self._note.page, self._kept_of):
            return False
        self._kept_of = version
        return True

    async def keep_page(self, page: Page, address: str, version: str) -> None:
        """The page that just connected is the last known good one."""
        try:
            document = await page.source(address, within=_WITHIN)
            await asyncio.to_thread(keep_page, self._folder, version, document)
        except (EngineError, OSError, ValueError) as error:
            log.info("cannot store the page of WhatsApp Web that works now: %s", error)
            return
        self._note = replace(self._note, page=version)
        await self.write()

    async def keep_diagnostics(self, why: str, page: Page | None, view: SessionView) -> None:
        """What was seen of a failed start, with a picture where the page still gives one."""
        claim, facts = view.claim, view.facts
        seen: dict[str, Any] = {
            "why": why[:1000],
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "claim": f"{claim.status} {claim.reason} {claim.phase}",
        }
        if facts is not None:
            seen |= {"failure": facts.failure, "stream": claim.raw, "version": facts.version}
        picture = None
        if page is not None:
            try:
                seen["page"] = await page.ask("deep", within=_WITHIN)
                picture = await page.picture(within=_WITHIN)
            except EngineError as error:
                seen["page_error"] = str(error)
        try:
            path = await asyncio.to_thread(keep_diagnostics, self._folder, seen, picture)
        except OSError as error:
            log.error("cannot keep diagnostics: %s", error)
        else:
            log.warning("the diagnostics of the failed start are in %s", path)
