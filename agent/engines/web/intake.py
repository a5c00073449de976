"""What arrives in the page, brought to who keeps it: records of the page's events as they come, and
all that a comparison finds in the page's own stores since the last moment before which all is kept.
So what came while worker, browser or page were down is kept at the next start, each once by its id.
"""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.clock import boot_now
from agent.core.words import ConnectionStatus
from agent.engines.base import Keeper, keep_usable
from agent.engines.tasks import Tasks, cancel
from agent.engines.web.browser.page import Page
from agent.engines.web.session import Session
from agent.engines.web.view import SessionView
from agent.errors import EngineError, WaError
from agent.files import write_whole

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
"""Its page ended or is another one: the next comparison finds what is lacking."""
_WITHIN = 20.0
_NEXT_WITHIN = 60.0
_COMPARE_WITHIN = 120.0
_LAST_WITHIN = 3.0
_MOST = 1000
"""Records of one answer of the page, which makes fewer of them at a time."""


@dataclass(frozen=True, slots=True)
class Mark:
    """All of this account's messages before this moment are kept."""

    at: float
    account: str = ""

    @property
    def since(self) -> float:
        """From when a comparison looks."""
        return max(0.0, self.at - MARGIN)


def read_mark(folder: Path) -> Mark:
    """The session's mark; where none can be read, now: a history is not handed over."""
    try:
        raw = json.loads((folder / TAKEN).read_bytes())
        return Mark(float(raw["at"]), str(raw["account"])[:40])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Mark(time.time())


def write_mark(folder: Path, mark: Mark) -> None:
    raw = {"version": 1, "at": mark.at, "account": mark.account}
    write_whole(folder / TAKEN, json.dumps(raw).encode())


class Intake:
    """One session's; does nothing where nobody keeps what arrives."""

    def __init__(
        self,
        folder: Path,
        keeper: Keeper,
        session: Session,
        view: SessionView,
        tasks: Tasks,
    ) -> None:
        self._folder, self._keeper, self._tasks = folder, keeper, tasks
        self._session, self._view = session, view
        self._mark: Mark | None = None
        self._account = ""
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._document = ""
        """The document that answered last, by a name that it drew."""
        self._done = 0
        """The number of the last record of it that is kept."""
        self._compared: tuple[float, float] | None = None
        """The first comparison of this document since the mark moved: our clock, and WhatsApp's."""
        self._due_at = 0.0
        self._troubled = False

    def connected(self, account: str) -> None:
        if self._keeper.keeps and self._task is None:
            self._account = account
            self._task = self._tasks.start(self._run(), "messages of the page")
        self._wake.set()

    def heard(self) -> None:
        """The page has records."""
        self._wake.set()

    async def finish(self) -> None:
        """What the page still has, before it ends; the next start finds what is left."""
        await cancel(self._task)
        if self._task is not None and self._session.alive:
            with suppress(EngineError, TimeoutError):
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
                    if self._is_connected and boot_now() >= self._due_at:
                        self._due_at = boot_now() + COMPARE_REST
                        await self._compare(self._session.page)
                        self._troubled = False
                except (EngineError, OSError) as error:
                    self._failed(error)
                    await asyncio.sleep(REST)
                    continue
            await self._pause()

    async def _pause(self) -> None:
        """Until the page has something, or the next comparison is due."""
        rest = self._due_at - boot_now() if self._is_connected else COMPARE_EVERY
        with suppress(TimeoutError):
            async with asyncio.timeout(max(rest, 0.1)):
                await self._wake.wait()
        self._wake.clear()

    @property
    def _is_connected(self) -> bool:
        return self._view.claim.status is ConnectionStatus.CONNECTED

    def _failed(self, error: Exception) -> None:
        """Tells it once. The page's own words may name a contact."""
        code = error.code if isinstance(error, WaError) else type(error).__name__
        level = logging.DEBUG if self._troubled or code in _GONE else logging.WARNING
        log.log(level, "messages wait in the page, not all are kept (%s)", code)
        self._troubled = self._troubled or level == logging.WARNING

    async def _drain(self, page: Page) -> None:
        """All records of events that the page has now."""
        while True:
            given = self._document, self._done
            answer = await _ask(page, "take", *given, within=_WITHIN)
            if answer["document"] != self._document:
                # What the last one still had, a comparison finds.
                self._document, self._compared, self._due_at = answer["document"], None, 0.0
            if lost := _count(answer.get("lost")):
                log.warning("%d records were too many for the page: comparing", lost)
                self._due_at = 0.0
            if not (records := _records(answer)):
                return
            await keep_usable(self._keeper, records)
            self._done = _count(answer.get("number"))

    async def _compare(self, page: Page) -> None:
        assert self._mark is not None
        since, begun, document = self._mark.since, boot_now(), self._document
        found = await _ask(page, "compare", since, _COMPARE_WITHIN - 5, within=_COMPARE_WITHIN)
        if found.get("cut"):
            log.warning("more messages than a comparison takes: the oldest are left out")
        left = True
        while left:
            answer = await _ask(page, "next", within=_NEXT_WITHIN)
            if not found["document"] == answer["document"] == document:
                raise EngineError("cannot compare: another page came", code="not_ready")
            await keep_usable(self._keeper, _records(answer))
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
        raise EngineError("cannot take messages: the page is not ready", code="not_ready")
    return raw


def _records(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Everything here was said by the page: a record without an id or a kind is none."""
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
