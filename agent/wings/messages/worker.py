"""Keeps in a session's worker what arrives in it. Whoever hands records over waits until the disk
has them; all that wait share one write."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from agent.core.words import KEPT, Happening, InstanceId
from agent.engines.base import Engine
from agent.errors import EngineError, InvalidRequest
from agent.wings.messages.lookup import Lookup
from agent.wings.messages.media.session_media import SessionMedia
from agent.wings.messages.record import clean
from agent.wings.messages.spool.line import Entry, entry_of
from agent.wings.messages.spool.page import Bounds, Page
from agent.wings.messages.spool.spool import Spool
from agent.worker.calls import Answer, Work

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

FOLDER = "messages"
MOST_RECORDS = 1000
"""Of one page."""
LONGEST_WAIT = 60.0
TELL_APART = 0.25
"""Seconds from one word about new records to the next."""
LOOK_EVERY = 3600.0
"""Seconds between two looks for what is too old."""
CLOSE_WITHIN = 5.0
_LARGEST = 1 << 53


def open_worker_part(
    folder: Path, id: InstanceId, settings: Mapping[str, Any], tell: Callable[[Happening], None]
) -> "Messages":
    return Messages(folder / FOLDER, id, settings, tell)


class Messages:
    """The spool of this worker's session, in one thread at a time beside the loop."""

    def __init__(
        self,
        path: Path,
        id: InstanceId,
        settings: Mapping[str, Any],
        tell: Callable[[Happening], None],
    ) -> None:
        self._keeps = settings.get("keep") is not False
        self._spool = Spool(path, _bounds(settings), id)
        self._lookup = Lookup(self._spool, self._ask)
        self._media = SessionMedia(path, settings, self)
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._waiting: list[tuple[list[Entry], asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self._told = 0
        """The newest cursor that the agent heard of."""
        self._next_word: asyncio.TimerHandle | None = None
        self._look = self._loop.call_later(LOOK_EVERY, self._begin_look)
        self._looking: asyncio.Task[None] | None = None
        self._refused_since = 0.0

    @property
    def keeps(self) -> bool:
        return self._keeps

    @property
    def works(self) -> Mapping[str, Work]:
        return {
            "messages": self._messages,
            "messages_settled": self._settled,
            "messages_state": self._state,
            **self._lookup.works,
            **self._media.works,
            "messages_above": self._above,
        }

    def serve(self, engine: Engine) -> None:
        self._media.serve(engine)

    async def keep(self, records: Sequence[Mapping[str, Any]]) -> None:
        try:
            entries = [entry_of(clean(record)) for record in records]
        except (ValueError, TypeError) as error:
            raise EngineError(f"cannot keep what arrived: {error}", code="bad_record") from error
        if not entries:
            return
        done: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((entries, done))
        if self._writing is None or self._writing.done():
            self._writing = self._loop.create_task(self._write(), name="keep messages")
        await done
        self._media.arrived(records)

    async def find(self, id: str) -> Mapping[str, Any] | None:
        """The record of that id, with what no reader gets."""
        return await self._ask(self._spool.find, id)

    async def search(self, chat: str, message_id: str) -> Mapping[str, Any] | None:
        """The same of a message by WhatsApp's id."""
        return await self._lookup.message(chat, message_id)

    async def close(self) -> None:
        """Return when what waits is on the disk."""
        self._look.cancel()
        await self._media.close()
        if self._next_word is not None:
            self._next_word.cancel()
        tasks = {task for task in (self._writing, self._looking) if task is not None}
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_WITHIN)
        if not self._turn.locked():  # else the disk hangs, and so would this
            self._spool.close()

    # keeping

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            entries = [entry for each, _ in batch for entry in each]
            try:
                new = await self._do(self._spool.append, entries)
            except Exception as error:
                self._refuse(error, [done for _, done in batch])
                continue
            self._note_kept(new)
            for _, done in batch:
                if not done.done():
                    done.set_result(None)

    def _refuse(self, error: Exception, waiting: Sequence[asyncio.Future[None]]) -> None:
        cause = (isinstance(error, OSError) and error.strerror) or type(error).__name__
        if not isinstance(error, OSError):
            log.error("cannot keep messages: internal error", exc_info=error)
        if not self._refused_since:
            self._refused_since = time.monotonic()
            text = f"messages cannot be kept: {cause}; WhatsApp keeps what it can until they are"
            log.error("%s", text)
            self._tell(Happening("not_kept", {"text": text}))
        for done in waiting:
            if not done.done():
                done.set_exception(EngineError(f"cannot keep messages: {cause}", code="not_kept"))

    def _note_kept(self, new: int) -> None:
        if self._refused_since:
            took, self._refused_since = time.monotonic() - self._refused_since, 0.0
            text = f"messages are kept again, after {took:.0f} s"
            log.info("%s", text)
            self._tell(Happening("kept_again", {"text": text}))
        if new:
            self._arrived.set()
            self._arrived = asyncio.Event()
            if self._next_word is None:
                self._say()

    def _say(self) -> None:
        """Tell the agent of the newest at once, of those after it a little later as one."""
        self._next_word = None
        if self._spool.newest > self._told:
            self._told = self._spool.newest
            self._tell(Happening(KEPT, {"cursor": self._told}))
            self._next_word = self._loop.call_later(TELL_APART, self._say)

    # the agent's calls

    async def _messages(self, args: Mapping[str, Any]) -> Answer:
        after = _whole(args, "after", 0)
        limit = min(_whole(args, "limit", 100), MOST_RECORDS)
        until = self._loop.time() + min(_seconds(args, "wait"), LONGEST_WAIT)
        while True:
            arrived = self._arrived
            page = await self._ask(self._spool.page, after, max(1, limit))
            left = until - self._loop.time()
            if page.records or left <= 0:
                return _answer(page)
            after = page.next
            try:
                async with asyncio.timeout(left):
                    await arrived.wait()
            except TimeoutError:
                return _answer(page)

    async def _settled(self, args: Mapping[str, Any]) -> Answer:
        cursor = _whole(args, "cursor")
        await self._ask(self._spool.settle, cursor)
        return {}

    async def _above(self, args: Mapping[str, Any]) -> Answer:
        await self._ask(self._spool.go_above, _whole(args, "cursor"))
        return {}

    async def _state(self, _args: Mapping[str, Any]) -> Answer:
        state = await self._ask(self._spool.state)
        files, size = await self._media.state()
        media = {"media_files": files, "media_bytes": size}
        return {**state, **media, "keeps": self._keeps, "refused": bool(self._refused_since)}

    # the spool

    def _begin_look(self) -> None:
        self._look = self._loop.call_later(LOOK_EVERY, self._begin_look)
        if self._spool.there:
            self._looking = self._loop.create_task(self._trim(), name="look at old messages")

    async def _trim(self) -> None:
        try:
            await self._do(self._spool.trim)
            await self._media.trim(self._spool.due)
        except OSError as error:
            log.warning("cannot look at old messages: %s", error.strerror)

    async def _ask(self, work: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
        try:
            return await self._do(work, *args, **more)
        except OSError as error:
            why = f"cannot read the messages that are kept: {error.strerror}"
            raise EngineError(why, code="unreadable") from error

    async def _do(self, work: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
        """Whoever waits may be cancelled; the thread goes on, and nobody else begins before."""
        alone = self._loop.create_task(self._alone(partial(work, *args, **more)))
        try:
            return await asyncio.shield(alone)
        finally:
            self._say_damage()

    def _say_damage(self) -> None:
        spool = self._spool
        names, spool.damaged = spool.damaged, []
        said, spool.foreign = spool.foreign, []
        if names:
            said = [*said, f"messages were damaged on the disk: {', '.join(names)} was set aside"]
        for sentence in said:
            text = f"{sentence}; what was in it is not read, readers get a gap or begin anew"
            log.error("%s", text)
            self._tell(Happening("kept_aside", {"text": text}))

    async def _alone(self, work: Callable[[], T]) -> T:
        async with self._turn:
            return await self._loop.run_in_executor(None, work)


def _bounds(settings: Mapping[str, Any]) -> Bounds:
    """What is no number is as the default: the agent checked them when it read its file."""
    plain = Bounds()
    found = {
        name: type(default)(value)
        for name in ("hours", "megabytes", "most")
        for default in (getattr(plain, name),)
        if isinstance(value := settings.get(name), int | float) and value > 0
    }
    return Bounds(**found)


def _answer(page: Page) -> Answer:
    return {
        "records": page.records,
        "next": page.next,
        "oldest": page.oldest,
        "newest": page.newest,
        "more": page.more,
    }


def _whole(args: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = args.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _LARGEST:
        raise InvalidRequest(f"cannot use {key}: not a whole number", field=key)
    return value


def _seconds(args: Mapping[str, Any], key: str) -> float:
    value = args.get(key, 0.0)
    if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
        raise InvalidRequest(f"cannot use {key}: not a number of seconds", field=key)
    return float(value)
