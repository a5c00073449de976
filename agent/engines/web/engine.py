"""The web engine: what the worker asks of a session, and its ways back from trouble.

What arrives in the page is brought to who keeps it: records of the page's events as they come, and
all that a comparison finds in the page's own stores since the last moment before which all is kept.
So what came while worker, browser or page were down is kept at the next start, each once by its id.
"""

import asyncio
import gc
import json
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent import clock, errors, files
from agent.core.words import Claim, ConnectionStatus, Happening
from agent.engines import base, whatsapp
from agent.engines.tasks import Tasks, cancel, until_set
from agent.engines.web import fetch, page_calls, rules
from agent.engines.web.browser.page import Page, page_script
from agent.engines.web.browser.process import find_browser, find_setpriv
from agent.engines.web.session import Needs, Record, Session, Starts, flush_pairing, make_durable
from agent.engines.web.view import SessionView

Status = ConnectionStatus
log = logging.getLogger(__name__)

TAKEN = "taken.json"
COMPARE_EVERY = 600.0
MARGIN = 900.0
"""Seconds before the mark that are compared again: WhatsApp's clock is not ours."""
OPEN = 86400.0
"""Seconds for which a message that cannot be read yet, or a chat, holds the mark."""
REST, COMPARE_REST = 5.0, 60.0
"""Seconds before the next try when the page did not answer, or the records were not kept; and
before the next comparison after one that failed."""
_GONE = frozenset({"not_running", "browser_gone", "page_crashed", "not_ready"})
"""Codes with which the page has ended or is another one: the next comparison finds the rest."""
_WITHIN = 20.0
_NEXT_WITHIN = 60.0
_COMPARE_WITHIN = 120.0
_LAST_WITHIN = 3.0
_MOST = 1000
"""Records of one answer of the page, which makes fewer of them at a time."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The moment before which all of this account's messages are kept."""

    at: float
    account: str = ""

    @property
    def since(self) -> float:
        """The time from which a comparison looks."""
        return max(0.0, self.at - MARGIN)


def read_mark(folder: Path) -> Mark:
    """Return the session's mark; if none can be read, now: a history is not handed over."""
    try:
        raw = json.loads((folder / TAKEN).read_bytes())
        return Mark(float(raw["at"]), str(raw["account"])[:40])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Mark(time.time())


def write_mark(folder: Path, mark: Mark) -> None:
    raw = {"version": 1, "at": mark.at, "account": mark.account}
    files.write_whole(folder / TAKEN, json.dumps(raw).encode())


class Intake:
    """Takes in what arrives in one session, if messages are kept."""

    def __init__(
        self, folder: Path, keeper: base.Keeper, session: Session, view: SessionView, tasks: Tasks
    ) -> None:
        self._folder, self._keeper, self._tasks = folder, keeper, tasks
        self._session, self._view = session, view
        self._mark: Mark | None = None
        self._account = ""
        self.wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._document = ""
        """The document that answered last, by a name that it drew."""
        self._done = 0
        """Number of the last kept record of the document."""
        self._compared: tuple[float, float] | None = None
        """The first comparison of this document since the mark moved: our clock, and WhatsApp's."""
        self._due_at = 0.0
        self._troubled = False

    def connected(self, account: str) -> None:
        if self._keeper.keeps and self._task is None:
            self._account = account
            self._task = self._tasks.start(self._run(), "messages of the page")
        self.wake.set()

    async def finish(self) -> None:
        """Take the page's last messages before it ends; the next start finds those that are
        left."""
        await cancel(self._task)
        if self._task is not None and self._session.alive:
            with suppress(errors.EngineError, TimeoutError):
                async with asyncio.timeout(_LAST_WITHIN):
                    await self._drain(self._session.page)

    async def _run(self) -> None:
        mark = await asyncio.to_thread(read_mark, self._folder)
        if mark.account != self._account:
            # Another account's messages were never promised, nor those of before the first start.
            mark = Mark(time.time(), self._account)
            with suppress(OSError):
                await asyncio.to_thread(write_mark, self._folder, mark)
        self._mark = mark
        while True:
            if self._session.alive:
                try:
                    await self._drain(self._session.page)
                    if self._is_connected and clock.boot_now() >= self._due_at:
                        self._due_at = clock.boot_now() + COMPARE_REST
                        await self._compare(self._session.page)
                        self._troubled = False
                except (errors.EngineError, OSError) as error:
                    self._failed(error)
                    await asyncio.sleep(REST)
                    continue
            await self._pause()

    async def _pause(self) -> None:
        """Wait until the page has something, or the next comparison is due."""
        rest = self._due_at - clock.boot_now() if self._is_connected else COMPARE_EVERY
        await until_set(self.wake, max(rest, 0.1))
        self.wake.clear()

    @property
    def _is_connected(self) -> bool:
        return self._view.claim.status is ConnectionStatus.CONNECTED

    def _failed(self, error: Exception) -> None:
        """Log a failure once, without the page's own words: they may name a contact."""
        code = error.code if isinstance(error, errors.WaError) else type(error).__name__
        level = logging.DEBUG if self._troubled or code in _GONE else logging.WARNING
        log.log(level, "messages wait in the page, not all are kept (%s)", code)
        self._troubled = self._troubled or level == logging.WARNING

    async def _drain(self, page: Page) -> None:
        """Keep all records of events that the page has now."""
        while True:
            answer = await _ask(page, "take", self._document, self._done, within=_WITHIN)
            if answer["document"] != self._document:
                # A comparison finds the records that the last document still had.
                self._document, self._done = answer["document"], 0
                self._compared, self._due_at = None, 0.0
            if lost := _count(answer.get("lost")):
                log.warning("%d records were too many for the page: comparing", lost)
                self._due_at = 0.0
            if not (records := _records(answer)):
                return
            await base.keep_usable(self._keeper, records)
            self._done = _count(answer.get("number"))

    async def _compare(self, page: Page) -> None:
        assert self._mark is not None
        since, begun, document = self._mark.since, clock.boot_now(), self._document
        found = await _ask(page, "compare", since, _COMPARE_WITHIN - 5, within=_COMPARE_WITHIN)
        if found.get("cut"):
            log.warning("more messages than a comparison takes: the oldest are left out")
        left = True
        while left:
            answer = await _ask(page, "next", within=_NEXT_WITHIN)
            if not found["document"] == answer["document"] == document:
                raise errors.EngineError("cannot compare: another page came", code="not_ready")
            await base.keep_usable(self._keeper, _records(answer))
            left = _count(answer.get("left")) > 0
        self._due_at = begun + COMPARE_EVERY
        await self._drain(page)
        if self._document == document:
            if failed := _count(found.get("failed")):
                log.warning("cannot compare the messages of %d chats", failed)
            now, unread = _moment(found.get("now")), _moment(found.get("unread"))
            await self._advance(begun, now, self._mark.at if failed else unread)

    async def _advance(self, begun: float, now: float, open_since: float) -> None:
        """Move the mark to the start of an earlier comparison of this document: what WhatsApp kept
        while the session was away comes for some time after it is connected. `open_since`: from
        here on something is not kept yet; for a day that holds the mark."""
        assert self._mark is not None
        if self._compared is None:
            self._compared = begun, now
            return
        earlier, then = self._compared
        if begun - earlier < COMPARE_EVERY / 2:
            return
        self._compared = begun, now
        if open_since > now - OPEN:
            then = min(then, open_since)
        if then > self._mark.at:
            self._mark = Mark(then, self._account)
            await asyncio.to_thread(write_mark, self._folder, self._mark)


async def _ask(page: Page, what: str, *given: Any, within: float) -> Mapping[str, Any]:
    raw = await page.ask(f"records.{what}", *given, within=within)
    if not isinstance(raw, Mapping) or not isinstance(raw.get("document"), str):
        raise errors.EngineError("cannot take messages: the page is not ready", code="not_ready")
    return raw


def _records(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the records of a page's answer. It is not trusted: one without id or kind is none."""
    given = answer.get("records")
    return [each for each in given[:_MOST] if is_record(each)] if isinstance(given, list) else []


def is_record(raw: Any) -> bool:
    if not isinstance(raw, Mapping):
        return False
    id, kind = raw.get("id"), raw.get("kind")
    return isinstance(id, str) and 0 < len(id) <= 200 and kind in KINDS


KINDS = frozenset(
    {
        *("message", "message_reaction", "message_edit", "message_delete", "message_vote"),
        *("message_ack", "call"),
    }
)


def _count(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0


def _moment(value: Any) -> float:
    return float(value) if type(value) in (int, float) and 0 < value < 1e11 else 0.0


SETTLED = 5.0
"""Seconds of a connection after which the page has done the most of its start."""


def open_engine(folder: Path, settings: Mapping[str, Any], reporter: base.Reporter) -> "WebEngine":
    """Open the engine. Browser and page script are looked for at each start, which may find what
    this one lacks."""
    chosen = rules.read_settings(settings)
    cache = base.cache_folder()

    def needs() -> Needs:
        try:
            program = find_browser(chosen.browser, os.environ.get("WA_BROWSER", ""))
            find_setpriv()
            kept_from = read_mark(folder).since if reporter.keeps else None
            config, bundle = fetch.page_config(chosen.device_name), fetch.read_bundle(cache)
            script = page_script(chosen.url, config, bundle, kept_from=kept_from)
        except errors.ConfigError as error:
            raise errors.EngineError(str(error), code=error.code) from error
        return Needs(program, script)

    return WebEngine(folder, chosen, needs, reporter)


class WebEngine:
    """The engine of one session. It has at most one task: a start, or a way back from trouble."""

    def __init__(
        self,
        folder: Path,
        settings: rules.WebSettings,
        needs: Callable[[], Needs],
        reporter: base.Reporter,
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._reporter = reporter
        self._tasks = Tasks(reporter.crashed)
        self._session = Session(folder, settings, needs, self._take_word, self._browser_gone)
        self._record = Record(folder)
        self._view = SessionView(pairing_safe=self._record.paired)
        self._intake = Intake(folder, reporter, self._session, self._view, self._tasks)
        parts = (self._session, self._view, self._record, self._publish, self._tasks)
        self._starts = Starts(folder, settings, *parts)
        self._reported: Claim | None = None
        self._saving = False

    async def connect(self) -> None:
        if self._starts.stopping:
            raise errors.EngineError("cannot connect: the session is stopping", code="stopping")
        if self._starts.working:
            return
        idle_code = self._view.claim.reason == "qr_idle" and not self._view.silent
        if idle_code and self._session.alive:
            await page_calls.refresh_code(self._session.page)
        else:
            self._starts.connect()

    async def disconnect(self) -> None:
        await self._starts.end()
        await self._session.close()
        self._view.failed("", "")
        self._publish()

    async def probe(self, *, deep: bool = False) -> base.ProbeAnswer:
        view, limit = self._view, base.probe_limit()
        if self._starts.working or not self._session.alive:
            told = self._reported if self._starts.takes_up() else None
            return base.ProbeAnswer(told or view.claim_at(clock.boot_now()), {})
        try:
            await self._look(limit)
            detail: dict[str, Any] = {}
            if deep:
                told = await self._session.page.ask("missing", within=limit)
                parts = told if isinstance(told, list) else []
                detail["missing"] = [name for name in parts if isinstance(name, str)]
                self._starts.complete(detail["missing"])
        except errors.EngineError:
            view.silent = True
            raise
        view.silent = False
        return base.ProbeAnswer(view.claim_at(clock.boot_now()), detail)

    async def qr(self) -> base.Qr | None:
        if self._view.claim.status is not Status.QR_REQUIRED:
            return None
        if self._view.claim.reason == "qr_idle":
            await page_calls.refresh_code(self._session.page)
        elif self._view.lacks_code and not self._starts.working:
            self._starts.connect()
            return None
        await self._look(page_calls.ANSWER)
        facts = self._view.facts
        waits = self._view.claim.status is Status.QR_REQUIRED
        if not waits or facts is None or not facts.qr:
            return None
        lives = whatsapp.FIRST_CODE if facts.qr_number == 1 else whatsapp.NEXT_CODE
        return base.Qr(facts.qr, max(1.0, lives - (facts.qr_age or 0.0)), facts.qr_number)

    async def send(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        return await page_calls.send(self._connected("send"), page_calls.read_message(message))

    async def mark_read(self, asked: Mapping[str, Any]) -> None:
        await page_calls.mark_read(self._connected("mark messages as read"), asked)

    async def presence(self, asked: Mapping[str, Any]) -> None:
        await page_calls.presence(self._connected("show a presence"), asked)

    def load_media(self, record: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        return page_calls.load_media(self._connected("load the file"), record)

    async def logout(self) -> None:
        await page_calls.log_out(self._session.page)
        self._view.ended("LOGOUT")
        self._publish()

    async def regenerate_keys(self, peers: list[str]) -> None:
        why = "cannot regenerate keys: WhatsApp Web renews them itself"
        raise errors.EngineError(why, code="not_supported")

    async def free_memory(self) -> None:
        gc.collect()
        if self._session.alive:
            await self._session.page.call("HeapProfiler.collectGarbage", within=page_calls.ANSWER)

    async def _tidy(self) -> None:
        """Free what a start leaves behind: a tenth of the page's memory."""
        await asyncio.sleep(SETTLED)
        if not self._starts.working and not self._starts.stopping:
            with suppress(errors.EngineError):
                await self.free_memory()

    async def prepare_stop(self) -> None:
        self._starts.stopping = True
        await self._starts.end()

    async def save(self) -> None:
        """Save what the browser wrote, or at a stop the whole profile."""
        if self._starts.stopping:
            self._reporter.progress()
            await self._intake.finish()
            if not await self._session.close():
                log.warning("the browser did not end cleanly; its page was closed before")
        await self._record.write()
        self._reporter.progress()
        await asyncio.to_thread(make_durable, self._folder, self._reporter.progress)

    async def close(self) -> None:
        await self.prepare_stop()
        await self._session.kill()
        await self._tasks.cancel()

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        if name == "pairing_code":
            digits = whatsapp.phone_of(arguments)
            if self._view.claim.status is not Status.QR_REQUIRED:
                why = "cannot get a pairing code: it waits for no scan"
                raise errors.EngineError(why, code="not_waiting")
            return await page_calls.pairing_code(self._session.page, digits)
        if name == "screenshot":
            return await page_calls.picture(self._session.page)
        if name == "file_part":
            return await page_calls.take_part(self._connected("take a file"), arguments)
        why = f"cannot {name!r:.40}: the web engine knows pairing_code, screenshot and file_part"
        raise errors.InvalidRequest(why, field="name")

    def _take_word(self, word: str, raw: Mapping[str, Any]) -> None:
        if word == "message":
            short = {key: str(raw.get(key, ""))[:64] for key in ("direction", "type", "id")}
            self._reporter.happened(Happening("message", short))
        elif word == "read_later":
            self._reporter.happened(Happening(word, {"id": str(raw.get("id", ""))[:64]}))
        elif word == "ack":
            ack, ids = page_calls.ack_word(raw.get("ack")), raw.get("ids")
            for id in ids[:100] if isinstance(ids, list) else ():
                self._reporter.happened(Happening("ack", {"id": str(id)[:64], "ack": ack}))
        elif word == "records":
            self._intake.wake.set()
        elif word == "page_crashed":
            log.warning("the page crashed")
            self._starts.come_back(word)
        elif word == "navigated":
            unreachable = raw.get("unreachable") is True
            self._starts.navigated(str(raw.get("url", ""))[:2000], unreachable=unreachable)
            self._publish()
        else:
            self._view.word(word, raw, clock.boot_now())
            self._publish()

    def _browser_gone(self, status: int, words: str) -> None:
        log.warning("the browser ended (status %d) %s", status, words)
        self._starts.come_back("browser_gone")

    async def _save_pairing(self) -> None:
        """Bring a new pairing to the disk; the view publishes it afterwards."""
        try:
            if await flush_pairing(self._session.page, self._folder):
                if self._view.pairing_to_save:
                    self._view.pairing_is_safe()
                    self._publish()
            elif self._view.pairing_to_save and self._starts.may_begin:
                log.info("closing the browser once, so that it writes the new pairing to the disk")
                self._starts.begin(self._starts.start)
        except errors.EngineError as error:
            # The browser went away. The next one shows what came of it.
            log.warning("cannot bring a new pairing to the disk: %s", error)
        finally:
            self._saving = False

    def _connected(self, doing: str) -> Page:
        if self._view.claim.status is not Status.CONNECTED or self._starts.stopping:
            raise errors.EngineError(f"cannot {doing}: not connected", code="not_connected")
        return self._session.page

    async def _look(self, within: float) -> None:
        self._view.look(await self._session.page.ask("read", within=within), clock.boot_now())
        self._publish()

    def _publish(self) -> None:
        """Publish a new claim, and write down what must outlive this worker."""
        if self._view.pairing_to_save and not self._saving and not self._starts.stopping:
            self._saving = True
            self._tasks.start(self._save_pairing(), "save the pairing")
        if self._starts.takes_up():
            return
        claim, facts = self._view.claim, self._view.facts
        if self._reported is None or replace(claim, raw="") != replace(self._reported, raw=""):
            self._reported = claim
            if claim.status is Status.CONNECTED:
                self._tasks.start(self._tidy(), "collect garbage")
            self._reporter.claim(self._view.claim_at(clock.boot_now()))
        if claim.status is Status.CONNECTED:
            self._intake.connected(claim.account)
            self._record.connected(claim.account)
            version = facts.version if facts is not None else ""
            if self._settings.page == rules.LIVE and self._record.wants_page(version):
                page, address = self._session.page, self._view.address
                self._tasks.start(self._record.keep_page(page, address, version), "keep the page")
        elif claim.reason == "logout":
            self._record.unpaired()
        if self._record.changed:
            self._tasks.start(self._record.write(), "write the note")
