"""The ways to a page that works: a start, a reload, a load past all caches, and when to give up.
One of them goes on at a time; the view says what is claimed meanwhile."""

import asyncio
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from agent.clock import boot_now
from agent.core.words import Claim, ConnectionStatus
from agent.engines.tasks import Tasks, cancel, runs
from agent.engines.web.browser.page import Page
from agent.engines.web.files import lost_store
from agent.engines.web.profile import Note, keep_diagnostics, keep_page, read_note, write_note
from agent.engines.web.session import Session
from agent.engines.web.settings import WebSettings
from agent.engines.web.states import BROWSER_STAYS, FRESH_PAGE, REASON_OF
from agent.engines.web.view import (
    LOOK,
    Reloads,
    SessionView,
    judge_document,
    parse_document,
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


Status = ConnectionStatus
Work = Callable[[], Coroutine[Any, Any, None]]

STARTS_WINDOW = 600.0
PAST_CACHES_EVERY = 600.0
"""Seconds in which one load past every cache is enough; a connect by the agent allows another."""
INCOMPLETE_EVERY = 1800.0
"""Seconds between two such loads of a connected page that lacks what sending needs."""
SENDING = frozenset({"MsgStore", "ChatStore", "addAndSendMsgToChat", "findOrCreateLatestChat"})
"""What sending needs, by the names of observer.js."""
LOOK_EVERY = 1.0
_LOOK_WITHIN = 3.0


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
    _work: asyncio.Task[None] | None = None
    _follower: asyncio.Task[None] | None = None
    _browser_ends: deque[float] = field(default_factory=deque)
    _reloads: Reloads = field(default_factory=Reloads)
    _past_caches_at: float = -math.inf
    _is_passing_caches: bool = False
    _stopping: bool = False

    @property
    def working(self) -> bool:
        return runs(self._work)

    @property
    def may_begin(self) -> bool:
        return not self.working and not self._stopping

    def begin(self, work: Work) -> None:
        self._work = self.tasks.start(work(), "web session")

    def connect(self) -> None:
        """The agent wants a connection: the next try, with all of its own attempts."""
        self._browser_ends.clear()
        self._past_caches_at = -math.inf
        if not self.session.alive:
            self.begin(self.start)
        elif self.view.claim.reason in FRESH_PAGE:
            self.begin(self.load_past_caches)
        elif self.view.needs_revival(boot_now()):
            self.begin(self.revive)

    def stop(self) -> None:
        """Nothing more begins by itself."""
        self._stopping = True

    async def end(self) -> None:
        await cancel(self._work, self._follower)

    def come_back(self, work: Work, word: str) -> None:
        """After an end of the page or the browser; too many of them are the agent's turn."""
        if not self.may_begin:
            return
        self.view.interrupted(word)
        if self._too_many(self._browser_ends, self.settings.browser_starts, STARTS_WINDOW):
            self.view.failed("page_crashed", word)
            self.publish()
            return
        self.begin(partial(self._again, work, word))

    async def _again(self, work: Work, word: str) -> None:
        # An answer, or none, to a question of before may have come with the end.
        self.view.interrupted(word)
        self.view.silent = False
        await work()

    def navigated(self, address: str, *, unreachable: bool, asked: bool) -> None:
        """The page shows another document. `asked`: by us, and the event came late."""
        now = boot_now()
        self.view.new_document(address, now)
        if self.working or self._stopping:
            return
        if asked or self.view.has_ended:
            self._follow()
        elif unreachable:
            self.view.failed("unreachable", f"cannot load {place_of(address)}")
        elif reloads := self._reloads.judge(address, now):
            self.view.failed("injection_failed", reloads)
        else:
            self._follow()

    def takes_up(self) -> bool:
        """Whether what is to be published now is dealt with here first."""
        claim = self.view.claim
        if claim.reason not in FRESH_PAGE or self._stopping:
            return False
        if self.working:
            # The old document still speaks, and another one is on its way.
            return self._is_passing_caches
        if not self.session.alive:
            return False
        if boot_now() - self._past_caches_at >= PAST_CACHES_EVERY:
            log.warning("%s (%s): loading the page past every cache", claim.reason, claim.raw)
            self.begin(self.load_past_caches)
            return True
        if claim.reason in BROWSER_STAYS:
            return False
        self.begin(partial(self._give_up, claim))
        return True

    async def start(self) -> None:
        if self.record.paired and (lost := await asyncio.to_thread(lost_store, self.folder)):
            log.error("not starting a browser: the session is paired, and %s", lost)
            self.view.lost(lost)
            self.publish()
            return
        self._reloads.clear()
        self.view.begin(boot_now(), "attached")
        self.publish()
        try:
            await self.session.open()
            self.view.begin(boot_now(), "loaded")
            self.publish()
            await self.session.load()
        except (WaError, TimeoutError) as error:
            await self._failed(error)
        else:
            self._follow()

    async def revive(self) -> None:
        """Reload; where that does not help, another browser."""
        self._reloads.clear()
        self.view.revive(boot_now())
        self.publish()
        if await self.session.reload():
            self._follow()
        else:
            await self.session.kill()
            await self.start()
        self.view.silent = False

    async def load_past_caches(self) -> None:
        """Load the page as a browser that never saw it, with the pairing that it has."""
        self._past_caches_at = boot_now()
        self._reloads.clear()
        self.view.begin(boot_now(), "loaded")
        self.publish()
        self._is_passing_caches = True
        try:
            await self.session.load_past_caches()
        except (WaError, TimeoutError) as error:
            self._is_passing_caches = False
            await self._failed(error)
        else:
            self._follow()
        finally:
            self._is_passing_caches = False

    def complete(self, missing: Collection[str]) -> None:
        """A connected page without what sending needs may be an old copy, or half of a new one."""
        lacks = SENDING.intersection(missing)
        connected = self.view.claim.status is Status.CONNECTED
        if not (lacks and connected and self.may_begin and self.session.alive):
            return
        if boot_now() - self._past_caches_at >= INCOMPLETE_EVERY:
            log.warning("the page lacks %s: loading it past every cache", ", ".join(sorted(lacks)))
            self.begin(self.load_past_caches)

    async def _give_up(self, claim: Claim) -> None:
        """What came is not the page that is wanted, past the caches too: the agent's turn."""
        await self.leave_diagnostics(f"{claim.reason}: {claim.raw}")
        self.view.failed(claim.reason, claim.raw)
        await self.session.close()
        self.publish()

    async def _failed(self, error: Exception) -> None:
        log.warning("%s", error)
        await self.leave_diagnostics(str(error))
        await self.session.kill()
        code = error.code if isinstance(error, WaError) else ""
        self.view.failed(REASON_OF.get(code, "page_crashed"), str(error))
        self.publish()

    async def leave_diagnostics(self, why: str) -> None:
        page = self.session.page if self.session.alive else None
        await self.record.keep_diagnostics(why, page, self.view)

    def _follow(self) -> None:
        if not runs(self._follower):
            self._follower = self.tasks.start(self._follow_page(), "web page")

    async def _follow_page(self) -> None:
        """Look at the document until it is WhatsApp's and ready, or is called what it is."""
        while self.session.alive and not self._stopping:
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
        if self.session.alive and not self._stopping:
            await self.session.page.loading.rest()

    async def _look(self) -> None:
        page = self.session.page
        raw = await page.evaluate(LOOK, within=_LOOK_WITHIN)
        if not isinstance(raw, dict):
            return
        document = parse_document(raw.get("document"))
        if document is None:
            return
        self.view.loaded(page.loading.bytes, document, boot_now())
        self.view.look(raw.get("read"), boot_now())
        strange = judge_document(document, self.settings.url, self.view.idle(boot_now()))
        if strange is not None:
            self.view.failed(strange.reason, strange.raw)

    def _too_many(self, moments: "deque[float]", limit: int, window: float) -> bool:
        now = boot_now()
        while moments and moments[0] < now - window:
            moments.popleft()
        if len(moments) >= limit:
            return True
        moments.append(now)
        return False
