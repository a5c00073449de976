"""The one way to a page that works: a browser is started, and one that runs is closed in order
before. Also when that begins by itself, and when to give up. The view says what is claimed."""

import asyncio
import logging
import math
import os
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from agent.clock import boot_now
from agent.core.words import SUSPECT, Claim, ConnectionStatus
from agent.engines.tasks import Tasks, cancel, runs
from agent.engines.web.browser.page import Page
from agent.engines.web.profile import (
    Note,
    keep_diagnostics,
    keep_page,
    make_durable,
    read_note,
    write_note,
)
from agent.engines.web.rules import WebSettings, lost_store
from agent.engines.web.session import Session
from agent.engines.web.states import FRESH_PAGE, REASON_OF, read_fields
from agent.engines.web.view import (
    LOOK,
    Document,
    SessionView,
    judge_document,
    place_of,
)
from agent.errors import EngineError, WaError

log = logging.getLogger(__name__)


# The engine's records of a session: its note, the page that works, evidence of failures.


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
            "claim": f"{claim.status} {claim.reason} {claim.phase}",
        }
        if facts is not None:
            seen |= {"failure": facts.failure, "stream": claim.raw, "version": facts.version}
        picture = None
        if page is not None:
            try:
                seen["missing"] = await page.ask("missing", within=_WITHIN)
                picture = await page.picture("jpeg", within=_WITHIN)
            except EngineError as error:
                seen["page_error"] = str(error)
        try:
            path = await asyncio.to_thread(keep_diagnostics, self._folder, seen, picture)
        except OSError as error:
            log.error("cannot keep diagnostics: %s", error)
        else:
            log.warning("the diagnostics of the failed start are in %s", path)


Status = ConnectionStatus

STARTS_WINDOW = 600.0
PAST_CACHES_EVERY = 1800.0
"""Seconds in which one load past every cache is enough; a connect by the agent allows another."""
SENDING = frozenset({"MsgStore", "ChatStore", "addAndSendMsgToChat", "findOrCreateLatestChat"})
"""What sending needs, by the names of observer.js."""
LOOK_EVERY = 1.0


@dataclass(slots=True)
class Starts:
    """The folder, the browser's session, and what is known of both."""

    folder: Path
    settings: WebSettings
    session: Session
    view: SessionView
    record: Record
    publish: Callable[[], None]
    """Reports what the view claims now."""
    tasks: Tasks
    stopping: bool = False
    """Nothing more begins by itself."""
    _work: asyncio.Task[None] | None = None
    _follower: asyncio.Task[None] | None = None
    _browser_ends: list[float] = field(default_factory=list)
    _past_caches_at: float = -math.inf

    @property
    def working(self) -> bool:
        return runs(self._work)

    @property
    def may_begin(self) -> bool:
        return not self.working and not self.stopping

    def begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work = self.tasks.start(work(), "web session")

    def connect(self) -> None:
        """The agent wants a connection: the next try, with all of its own attempts."""
        self._browser_ends.clear()
        self._past_caches_at = -math.inf
        view = self.view
        if not self.session.alive or view.needs_revival(boot_now()):
            past_caches = self.session.alive and view.claim.reason in FRESH_PAGE
            self.begin(partial(self.start, past_caches=past_caches))

    async def end(self) -> None:
        await cancel(self._work, self._follower)

    def come_back(self, word: str) -> None:
        """After an end of the page or the browser; too many of them are the agent's turn."""
        if not self.may_begin:
            return
        now = boot_now()
        self._browser_ends = [each for each in self._browser_ends if each > now - STARTS_WINDOW]
        if len(self._browser_ends) >= self.settings.browser_starts:
            self.view.failed("page_crashed", word)
            self.publish()
            return
        self._browser_ends.append(now)
        self.begin(partial(self.start, word=word))

    def navigated(self, address: str, *, unreachable: bool) -> None:
        """The page shows another document."""
        self.view.new_document(address, boot_now())
        if not self.may_begin:
            return
        if unreachable and not self.view.has_ended:
            self.view.failed("unreachable", f"cannot load {place_of(address)}")
        else:
            self._follow()

    def takes_up(self) -> bool:
        """True if what would be published now is dealt with here first: a probe does not tell it
        either, or a connect of the agent would come while the browser still closes."""
        claim = self.view.claim
        if claim.reason not in FRESH_PAGE or self.stopping:
            return False
        if self.working or not self.session.alive:
            return self.working
        if self._begins_past_caches(f"{claim.reason} ({claim.raw})"):
            return True
        if claim.reason == "client_outdated":
            return False  # its page reports when the fault ends
        self.begin(partial(self._give_up, claim.reason, claim.raw))
        return True

    async def start(self, *, word: str = "", past_caches: bool = False) -> None:
        """`word`: the interruption that it follows."""
        if self.record.paired and (lost := await asyncio.to_thread(lost_store, self.folder)):
            log.error("not starting a browser: the session is paired, and %s", lost)
            self.view.claim = Claim(Status.AUTH_FAILURE, SUSPECT, raw=lost[:200])
            self.publish()
            return
        if past_caches:
            self._past_caches_at = boot_now()
        saves = self.view.pairing_to_save and not word
        self.view.begin(boot_now(), word)
        self.publish()
        try:
            closed_in_order = await self.session.close()
            if saves:
                await asyncio.to_thread(make_durable, self.folder, lambda: None)
                self.view.pairing_safe = closed_in_order
            await self.session.open()
            self.view.claim = replace(self.view.claim, phase="loaded")
            self.publish()
            await self.session.load(past_caches=past_caches)
        except (WaError, TimeoutError) as error:
            code = error.code if isinstance(error, WaError) else ""
            await self._give_up(REASON_OF.get(code, "page_crashed"), str(error))
        else:
            self._follow()

    def complete(self, missing: Collection[str]) -> None:
        """A connected page without what sending needs may be an old copy, or half of a new one."""
        lacks = SENDING.intersection(missing)
        connected = self.view.claim.status is Status.CONNECTED
        if not (lacks and connected and self.may_begin and self.session.alive):
            return
        self._begins_past_caches(f"the page lacks {', '.join(sorted(lacks))}")

    def _begins_past_caches(self, why: str) -> bool:
        due = boot_now() - self._past_caches_at >= PAST_CACHES_EVERY
        if due:
            log.warning("%s: loading the page past every cache", why)
            self.begin(partial(self.start, past_caches=True))
        return due

    async def _give_up(self, reason: str, why: str) -> None:
        """What came is not the page that is wanted, past the caches too: the agent's turn."""
        log.warning("%s: %s", reason, why)
        page = self.session.page if self.session.alive else None
        await self.record.keep_diagnostics(f"{reason}: {why}", page, self.view)
        await self.session.close()
        self.view.failed(reason, why)
        self._work = None  # a connect that follows this claim begins the next start
        self.publish()

    def _follow(self) -> None:
        if not runs(self._follower):
            self._follower = self.tasks.start(self._follow_page(), "web page")

    async def _follow_page(self) -> None:
        """Look at the document until it is WhatsApp's and ready, or is called what it is."""
        while self.session.alive and not self.stopping:
            await asyncio.sleep(LOOK_EVERY)
            if self.working:
                continue
            if not self.view.is_loading:
                break
            try:
                await self._look()
            except EngineError:
                continue  # a busy page; its silence is the probes' to judge
            self.publish()
        if self.session.alive and not self.stopping:
            await self.session.page.loading.rest()

    async def _look(self) -> None:
        page = self.session.page
        raw = await page.evaluate(LOOK, within=3.0)
        if not isinstance(raw, dict):
            return
        document = read_fields(Document, raw.get("document"))
        if document is None:
            return
        self.view.loaded(page.loading.bytes, document, boot_now())
        self.view.look(raw.get("read"), boot_now())
        reason = judge_document(document, self.settings.url, self.view.idle(boot_now()))
        if reason:
            self.view.failed(reason, document.shown)
