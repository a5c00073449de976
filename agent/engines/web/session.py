"""One browser with its page, and the session's folder: the profile, which one browser has, and the
engine's notes beside it. `Starts` is the one way to a page that works: a browser is started, and
one that runs is closed in order before; also when that begins by itself, and when to give up. The
view says what is claimed."""

import asyncio
import fcntl
import json
import logging
import math
import os
import struct
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from agent import clock, errors, files
from agent.core.words import SUSPECT, Claim, ConnectionStatus
from agent.engines.base import origin_of
from agent.engines.tasks import Tasks, cancel, runs
from agent.engines.web import rules
from agent.engines.web.browser.page import Page
from agent.engines.web.browser.process import Browser, Program
from agent.engines.web.view import FRESH_PAGE, LOOK, REASON_OF, SessionView, place_of

Status = ConnectionStatus
log = logging.getLogger(__name__)

LOCKS = ("SingletonLock", "SingletonSocket", "SingletonCookie")

_FLOCK = "hhqqi4x"
"""struct flock of fcntl(2) on 64-bit Linux."""


def holder(profile: Path) -> int | None:
    """The process that has one of the profile's databases open; 0: one whose number is hidden;
    None: the profile is free, whatever lock files are there. A headless shell leaves none, but each
    of its LevelDB databases has a lock on a file LOCK."""
    default = profile / "Default"
    databases = [default / "Local Storage" / "leveldb", default / "Session Storage"]
    with suppress(OSError):
        databases += sorted((profile / rules.STORES).iterdir())
    for database in databases:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        try:
            with files.open_plain(database / "LOCK") as file:
                told = fcntl.fcntl(file.fileno(), fcntl.F_GETLK, asked)
        except OSError:
            continue
        kind, _, _, _, pid = struct.unpack(_FLOCK, told)
        if kind != fcntl.F_UNLCK:
            return max(0, int(pid))
    return None


def prepare_profile(session: Path) -> None:
    """Make the profile ready for a browser; EngineError `profile_in_use` if one has it."""
    profile = rules.profile_path(session)
    try:
        profile.mkdir(mode=0o700, exist_ok=True)
        if profile.is_symlink():
            raise errors.EngineError(f"cannot use {profile}: it is a link", code="storage_failed")
        if (pid := holder(profile)) is not None:
            browser = f"process {pid}" if pid else "another browser"
            why = f"cannot use {profile}: {browser} has it open"
            raise errors.EngineError(why, code="profile_in_use")
        for name in LOCKS:  # left by a browser that is gone, or under another machine's name
            (profile / name).unlink(missing_ok=True)
    except OSError as error:
        why = f"cannot prepare {profile}: {error.strerror}"
        raise errors.EngineError(why, code="storage_failed") from error


def make_durable(session: Path, progress: Callable[[], None]) -> None:
    """Bring what the browser wrote of the session from the kernel's memory to the disk."""
    profile = rules.profile_path(session)
    for part in ("Default/IndexedDB", "Default/Local Storage", "Default"):
        folder = profile / part
        for path in [folder, *(folder.rglob("*") if part != "Default" else folder.glob("*"))]:
            with suppress(OSError):  # gone since it was listed
                if path.is_file() or path.is_dir():
                    files.sync(path)
        progress()


# The engine's own files beside the profile: a note, known pages, diagnostics.

_PAGES, _DIAGNOSTICS = "pages", "diagnostics"
_PAGES_KEPT, _DIAGNOSTICS_KEPT = 2, 3
_PAGE_LIMIT = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Note:
    """Facts that must outlive the worker and are not the browser's."""

    paired: bool = False
    account: str = ""
    page: str = ""
    """The version of the last page that connected."""
    device: str = ""
    """A word drawn at the first connection of a pairing: each copy of the session has it."""


def read_note(session: Path) -> Note:
    """Read the note. An unreadable one is empty: nothing in it is needed to connect."""
    try:
        raw = json.loads((session / rules.NOTE).read_bytes())
        account, page, device = raw["account"], raw["page"], raw.get("device", "")
        return Note(raw["paired"] is True, str(account)[:40], str(page)[:40], str(device)[:40])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Note()


def write_note(session: Path, note: Note) -> None:
    files.write_whole(session / rules.NOTE, json.dumps({"version": 1, **asdict(note)}).encode())


def keep_page(session: Path, version: str, document: str) -> None:
    """Remember the document that connected; the oldest of more than two goes."""
    if not rules.VERSION.fullmatch(version) or not document:
        return
    folder = session / _PAGES
    folder.mkdir(mode=0o700, exist_ok=True)
    files.write_whole(folder / f"{version}.html", document.encode())
    _keep_newest(folder, "*.html", _PAGES_KEPT)


def read_page(session: Path, wanted: str, note: Note) -> str | None:
    """Return the pinned document; None: the live one. EngineError: a named version is not there."""
    version = note.page if wanted == rules.KNOWN_GOOD else wanted
    if wanted == rules.LIVE or not version:
        return None
    path = session / _PAGES / f"{version}.html"
    try:
        with path.open("rb") as file:
            return file.read(_PAGE_LIMIT).decode()
    except (OSError, ValueError) as error:
        if wanted == rules.KNOWN_GOOD:
            return None
        why = f"cannot use page version {version}: there is no {path}"
        raise errors.EngineError(why, code="page_missing") from error


def keep_diagnostics(session: Path, facts: Mapping[str, Any], picture: bytes | None) -> Path:
    """Keep what was seen of a failed start; never a code, never a message."""
    folder = session / _DIAGNOSTICS
    folder.mkdir(mode=0o700, exist_ok=True)
    name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = folder / f"{name}.json"
    files.write_whole(path, json.dumps(dict(facts), indent=1).encode())
    if picture is not None:
        files.write_whole(folder / f"{name}.jpg", picture)
    for kind in ("*.json", "*.jpg"):
        _keep_newest(folder, kind, _DIAGNOSTICS_KEPT)
    return path


def _keep_newest(folder: Path, pattern: str, count: int) -> None:
    found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns)
    for path in found[:-count]:
        path.unlink(missing_ok=True)


# Bring a new pairing to the disk before the engine publishes it. A browser writes IndexedDB to the
# kernel when a transaction ends, and local storage up to a second later. A pairing needs both:
# until then a killed browser comes up with a new code.

_MARK_LIMIT = 8.0
"""Seconds for a mark: a record may end at a block's border, where no search finds it whole."""
_EVERY = 0.05
_FILE_LIMIT = 64 * 1024 * 1024


async def flush_pairing(page: Page, session: Path) -> bool:
    """True when everything that the page stored so far is on the disk; False: not proved."""
    mark = os.urandom(12).hex()
    try:
        async with asyncio.timeout(_MARK_LIMIT):
            if await page.ask("mark", mark, within=_MARK_LIMIT) is not True:
                return False
            await _wait_for(mark, rules.profile_path(session))
    except (errors.EngineError, TimeoutError) as error:
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
    with suppress(errors.EngineError, TimeoutError):
        async with asyncio.timeout(within):
            marked = await page.ask("mark", mark, within=within) is True
            # The browser then writes and closes what the page stored.
            await page.call("Page.navigate", {"url": "about:blank"}, within=within)
            if marked:
                await _wait_for(mark, rules.profile_path(session))


async def _wait_for(mark: str, profile: Path) -> None:
    while not await asyncio.to_thread(holds_mark, profile, mark):  # noqa: ASYNC110
        await asyncio.sleep(_EVERY)


def holds_mark(profile: Path, mark: str) -> bool:
    """True if a file of the profile's local storage holds this text."""
    sought = (mark.encode(), mark.encode("utf-16-le"))
    for path in (profile / "Default" / "Local Storage").rglob("*"):
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
PROFILE_TRIES = 30


@dataclass(frozen=True, slots=True)
class Needs:
    """A start takes these from the machine: the browser, and the script of each document."""

    program: Program
    script: str
    """Script of each document. It is large, and needed for a moment only."""


@dataclass(slots=True)
class Session:
    """A session's browser: at most one at a time, on the one profile in `folder`."""

    folder: Path
    settings: rules.WebSettings
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
        """The page; EngineError while there is none."""
        if self._page is None or self._browser is None or not self._browser.alive:
            raise errors.EngineError("cannot use the page: no browser runs", code="not_running")
        return self._page

    async def open(self) -> None:
        """Open a browser with an empty page that listens; EngineError says what failed."""
        needs = await asyncio.to_thread(self.needs)
        await self._take_profile()
        note = read_note(self.folder)
        pinned = await asyncio.to_thread(read_page, self.folder, self.settings.page, note)
        profile, proxy = rules.profile_path(self.folder), self.settings.proxy
        loopback = self.settings.url.startswith("http://")
        browser = await Browser.start(needs.program, profile, proxy=proxy, loopback=loopback)
        self._browser = browser
        browser.ended.add_done_callback(lambda ended: self._ended(browser, ended.result()))
        self._page = await Page.open(browser.debugger, needs.script, browser.version, self.word)
        if pinned is not None:
            await self._page.serve(pinned, within=10.0)

    async def _take_profile(self) -> None:
        """Take the profile, which a browser that was killed a moment ago may still hold."""
        for left in range(PROFILE_TRIES, -1, -1):
            try:
                await asyncio.to_thread(prepare_profile, self.folder)
                return
            except errors.EngineError as error:
                if error.code != "profile_in_use" or not left:
                    raise
            await asyncio.sleep(0.1)

    async def load(self, *, past_caches: bool) -> None:
        """Load the page. `past_caches`: as a browser that never saw it, with the pairing it has."""
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
            await leave_page(page, self.folder, within=3.0)
        return await browser.close()

    async def kill(self) -> None:
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


_WITHIN = 8.0


class Record:
    """Keeps the note. Never raises: a session that lives is worth more than its note."""

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
        """True once for each version: if this version's page, now connected, is to be kept."""
        if not version or version in (self._note.page, self._kept_of):
            return False
        self._kept_of = version
        return True

    async def keep_page(self, page: Page, address: str, version: str) -> None:
        """Keep the page that just connected, as the last known good one."""
        try:
            document = await page.source(address, within=_WITHIN)
            await asyncio.to_thread(keep_page, self._folder, version, document)
        except (errors.EngineError, OSError, ValueError) as error:
            log.info("cannot store the page of WhatsApp Web that works now: %s", error)
            return
        self._note = replace(self._note, page=version)
        await self.write()

    async def keep_diagnostics(self, why: str, page: Page | None, view: SessionView) -> None:
        """Keep a record of a failed start, with a picture if the page still gives one."""
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
            except errors.EngineError as error:
                seen["page_error"] = str(error)
        try:
            path = await asyncio.to_thread(keep_diagnostics, self._folder, seen, picture)
        except OSError as error:
            log.error("cannot keep diagnostics: %s", error)
        else:
            log.warning("the diagnostics of the failed start are in %s", path)


STARTS_WINDOW = 600.0
PAST_CACHES_EVERY = 1800.0
"""Seconds in which one load past every cache is enough; a connect by the agent allows another."""
SENDING = frozenset({"MsgStore", "ChatStore", "addAndSendMsgToChat", "findOrCreateLatestChat"})
"""Modules that sending needs, by the names of observer.js."""
LOOK_EVERY = 1.0


@dataclass(slots=True)
class Starts:
    """Starts a session: it has the folder, the browser's session, and what is known of both."""

    folder: Path
    settings: rules.WebSettings
    session: Session
    view: SessionView
    record: Record
    publish: Callable[[], None]
    """Reports what the view claims now."""
    tasks: Tasks
    stopping: bool = False
    """True if nothing more begins by itself."""
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
        """Connect for the agent: the next try, with all of its own attempts."""
        self._browser_ends.clear()
        self._past_caches_at = -math.inf
        view = self.view
        if not self.session.alive or view.needs_revival(clock.boot_now()):
            past_caches = self.session.alive and view.claim.reason in FRESH_PAGE
            self.begin(partial(self.start, past_caches=past_caches))

    async def end(self) -> None:
        await cancel(self._work, self._follower)

    def come_back(self, word: str) -> None:
        """Come back after an end of page or browser; after too many it is the agent's turn."""
        if not self.may_begin:
            return
        now = clock.boot_now()
        self._browser_ends = [each for each in self._browser_ends if each > now - STARTS_WINDOW]
        if len(self._browser_ends) >= self.settings.browser_starts:
            self.view.failed("page_crashed", word)
            self.publish()
            return
        self._browser_ends.append(now)
        self.begin(partial(self.start, word=word))

    def navigated(self, address: str, *, unreachable: bool) -> None:
        self.view.new_document(address, clock.boot_now())
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
        """Start the page. `word`: the interruption that the start follows."""
        if self.record.paired and (lost := await asyncio.to_thread(rules.lost_store, self.folder)):
            log.error("not starting a browser: the session is paired, and %s", lost)
            self.view.claim = Claim(Status.AUTH_FAILURE, SUSPECT, raw=lost[:200])
            self.publish()
            return
        if past_caches:
            self._past_caches_at = clock.boot_now()
        saves = self.view.pairing_to_save and not word
        self.view.begin(clock.boot_now(), word)
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
        except (errors.WaError, TimeoutError) as error:
            code = error.code if isinstance(error, errors.WaError) else ""
            await self._give_up(REASON_OF.get(code, "page_crashed"), str(error))
        else:
            self._follow()

    def complete(self, missing: Collection[str]) -> None:
        """Begin again if a connected page lacks what sending needs: it may be an old copy."""
        lacks = SENDING.intersection(missing)
        connected = self.view.claim.status is Status.CONNECTED
        if not (lacks and connected and self.may_begin and self.session.alive):
            return
        self._begins_past_caches(f"the page lacks {', '.join(sorted(lacks))}")

    def _begins_past_caches(self, why: str) -> bool:
        due = clock.boot_now() - self._past_caches_at >= PAST_CACHES_EVERY
        if due:
            log.warning("%s: loading the page past every cache", why)
            self.begin(partial(self.start, past_caches=True))
        return due

    async def _give_up(self, reason: str, why: str) -> None:
        """End a start whose page is not the expected one, past the caches too: the agent decides
        next."""
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
                page = self.session.page
                raw = await page.evaluate(LOOK, within=3.0)
            except errors.EngineError:
                continue  # a busy page; its silence is the probes' to judge
            if isinstance(raw, dict):
                size = page.loading.bytes
                self.view.look_at_document(raw, size, self.settings.url, clock.boot_now())
            self.publish()
        if self.session.alive and not self.stopping:
            await self.session.page.loading.rest()
