"""Reads by cursor what arrived in sessions, at once or after a wait: for polls, WebSockets,
webhooks and acknowledgements. It asks the session's worker while one runs, else the file."""

import asyncio
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import IO, Annotated, Any
from weakref import WeakSet

import msgspec

from agent import clock, errors
from agent.core.words import NO_LEASE, InstanceId
from agent.engines import tasks, whatsapp
from agent.messages.incoming import FOLDER, NAME, Answer, read_only
from agent.messages.media import ERRORS, open_media
from agent.messages.record import MESSAGE
from agent.supervise.registry import Registry

ENDING = "stopping"
READER = "/"
"""The consumer that reads over the API; it counts where no webhook gets the messages."""
LONGEST_PAGE = 500
CALL_SECONDS, MEDIA_SECONDS = 5.0, 15.0
"""Seconds of an answer, beside those that were asked for."""
LOOK_AGAIN = 2.0
"""Seconds after a look that failed."""
SETTLE_EVERY = 10.0
FILES, READS_AT_ONCE = 16, 4
"""Files of messages that are read at once, of all sessions; and reads of one session, whose worker
answers probes and sends meanwhile."""
_CANNOT = "cannot read messages"
FIGURES = ("newest", "waiting", "bytes", "lost", "refused")
_Whole = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Page(msgspec.Struct, frozen=True):
    records: list[dict[str, Any]]
    next: _Whole
    """The cursor to ask behind after this page."""
    oldest: _Whole
    newest: _Whole
    """Cursors; `oldest` is beyond `newest` where nothing is kept."""
    more: bool


@dataclass(slots=True)
class _Session:
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there may be more for waiting readers; they get another event then."""
    reads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READS_AT_ONCE))
    figures: dict[str, int] = field(default_factory=dict)
    """Figures that the session's worker told last."""
    cursors: dict[str, int] = field(default_factory=dict)
    """Consumer → cursor up to which all is delivered."""
    behind: dict[str, int] = field(default_factory=dict)
    """Consumer → number of records that stood behind its cursor."""

    def tell(self) -> None:
        self.news.set()
        self.news = asyncio.Event()


class Changes:
    """The sessions that have more to read, or may have, for one follower."""

    def __init__(self) -> None:
        self._ids: set[InstanceId] = set()
        self._filled = asyncio.Event()

    def add(self, id: InstanceId) -> None:
        self._ids.add(id)
        self._filled.set()

    async def next(self) -> frozenset[InstanceId]:
        """Return at least one session; may be cancelled without loss."""
        await self._filled.wait()
        self._filled.clear()
        ids, self._ids = frozenset(self._ids), set()
        return ids


class Reader:
    def __init__(self, registry: Registry) -> None:
        self.ending = False
        """True while the agent stops: waiting readers get what there is."""
        self._registry = registry
        registry.kept_more, registry.forgotten = self.changed, self.forget
        self._sessions = defaultdict[InstanceId, _Session](_Session)
        self._followers: WeakSet[Changes] = WeakSet()
        self._files = asyncio.Semaphore(FILES)
        self._own = self.follow_changes()
        """Sessions whose workers must hear what is settled, and be asked for their figures."""
        self._unknown = asyncio.Event()
        """Set if a session has no figures yet: its worker is asked at once."""
        self.consumers: Mapping[str, Callable[[InstanceId], bool]] = {}
        """Consumer → True for a session whose messages it gets; `settle` notes how far each is."""

    async def page(
        self, id: InstanceId, after: int | None, limit: int = 100, wait: float = 0.0, by: str = ""
    ) -> Page:
        """The records behind the cursor; None = behind the newest. It waits up to `wait` seconds
        for the first one, also while the session's worker is restarted. `by`: the consumer that
        takes them."""
        ends_at, looked = clock.boot_now() + wait, False
        while True:
            news = self._sessions[id].news  # before the look: what comes meanwhile is not missed
            failure: errors.WaError | None = None
            try:
                page = await self._look(id, after, limit, by)
                after = page.next if after is None else after
                if page.records:
                    return page
            except (errors.NotFound, errors.Refused, errors.TryLater) as error:
                if not (looked or isinstance(error, errors.TryLater)):
                    raise
                if isinstance(error, errors.NotFound):
                    why = f"{error}; it was deleted or moved meanwhile: ask again"
                    raise errors.TryLater(why, code="owner_changed") from error
                failure = error  # its worker ends, or is slow: the next look may be good
            looked, left = True, ends_at - clock.boot_now()
            if self.ending and wait:
                why = f"cannot wait for messages of {id}: the agent stops"
                raise errors.NotYet(why, code=ENDING)
            if left <= 0:
                if failure is not None:
                    raise failure
                return page
            await tasks.until_set(news, min(left, LOOK_AGAIN) if failure else left)

    @asynccontextmanager
    async def media(
        self, id: InstanceId, message: str, chat: str, wait: float
    ) -> AsyncIterator[tuple[Mapping[str, Any], IO[bytes]]]:
        """The `size`, `sha256`, `mimetype` and `filename` of a message's file, and the file. NotYet
        `media_loading` after `wait` seconds."""
        if self._files.locked():
            raise errors.TryLater(f"cannot read a file of {id}: too many are read now", code="busy")
        async with self._files:
            asked = {"id": message, "chat": chat, "wait": wait}
            try:
                said = await self.call(id, "messages_media", asked, wait + MEDIA_SECONDS)
            except errors.EngineError as error:
                kinds = (kind for kind, codes in ERRORS.items() if error.code in codes)
                raise next(kinds, errors.EngineError)(f"{error} ({id})", code=error.code) from error
            if said.get("state") != "ready":
                raise errors.NotYet(f"this file of {id} is being loaded", code="media_loading")
            folder = self._registry.root / id / FOLDER
            try:
                file = open_media(folder, str(said["name"]), int(said["size"]))
            except OSError as error:
                why = f"cannot read a file of {id}: {error.strerror}; try again"
                raise errors.TryLater(why, code="busy") from error
            with file:
                yield said, file

    async def ask(self, id: InstanceId, do: str, args: Mapping[str, Any]) -> Answer:
        """Ask the worker, or its file where none runs, a question of `incoming.READS`."""
        if (facts := self._registry.get(id)).instance.backend:
            raise errors.Refused(f"{_CANNOT} of {id}: its server has them", code="not_supported")
        async with self._sessions[id].reads:
            if facts.link is not None:
                return await self.call(id, do, args)
            path, loop = self._registry.root / id / FOLDER / NAME, asyncio.get_running_loop()
            try:
                return await loop.run_in_executor(None, read_only, path, do, args, id)
            except (OSError, sqlite3.Error, errors.StoreError, TypeError, ValueError) as error:
                why = f"cannot read the messages that are kept: {error}; try again"
                raise errors.TryLater(f"{_CANNOT} of {id}: {why}", code="slow") from error

    async def call(
        self, id: InstanceId, do: str, args: Mapping[str, Any], seconds: float = CALL_SECONDS
    ) -> Answer:
        """Make a call that only a running worker answers."""
        if (link := self._registry.get(id).link) is None:
            why = f"{_CANNOT} of {id}: its worker does not run or cannot be reached"
            comes = self._registry.get(id).instance.enabled
            raise (errors.TryLater if comes else errors.Refused)(why, code="not_running")
        try:
            return await link.call(do, args, timeout=seconds)
        except (errors.LinkError, errors.EngineError) as error:
            if (error.code, error.field) == ("invalid_request", "do"):
                why = f"{_CANNOT} of {id}: its worker keeps none ([messages] keep)"
                raise errors.Refused(why, code="not_kept") from error
            again = {ENDING: ENDING, NO_LEASE: NO_LEASE, "unreadable": "slow"}
            if isinstance(error, errors.EngineError) and error.code not in again:
                raise
            code = again.get(error.code, "slow")
            raise errors.TryLater(f"{_CANNOT} of {id}: {error}; try again", code=code) from error

    def settle(self, consumer: str, id: InstanceId, cursor: int) -> None:
        """Note that the consumer needs nothing up to the cursor any more."""
        cursors = self._sessions[id].cursors
        before = cursors.get(consumer)
        cursors[consumer] = max(cursor, before or 0) if consumer == READER else cursor
        if cursors[consumer] != before:
            self._own.add(id)

    async def run(self) -> None:
        """Tell workers what all consumers have, and take their figures."""
        try:
            while True:
                self._unknown.clear()
                await asyncio.gather(*map(self._settle, await self._own.next()))
                await tasks.until_set(self._unknown, SETTLE_EVERY)
        finally:
            self.end()

    async def _settle(self, id: InstanceId) -> None:
        session = self._sessions[id]
        cursors = {name: session.cursors.get(name, 0) for name in self._takers(id)}
        asked: dict[str, Any] = {"cursors": cursors}
        try:
            runs = self._registry.get(id).link is not None
            if runs and (all(cursors.values()) or READER not in cursors):
                asked["settled"] = min(cursors.values())
            raw = dict(await self.ask(id, "messages_state", asked))
            session.behind = msgspec.convert(raw.pop("behind", {}), dict[str, _Whole])
            told = session.figures | msgspec.convert(raw, dict[str, _Whole])
            if READER not in cursors:  # a worker that does not run has no settled place
                told["waiting"] = max(session.behind.values(), default=0)
            session.figures = {name: told.get(name, 0) for name in FIGURES}
        except (errors.WaError, msgspec.ValidationError) as error:
            if isinstance(error, errors.TryLater):  # else the next change tells
                self._own.add(id)

    def behind(self, consumer: str, id: InstanceId) -> int:
        session = self._sessions[id]
        newest = session.figures.get("newest", 0) <= session.cursors.get(consumer, 0)
        return 0 if newest else session.behind.get(consumer, 0)

    def figures(self) -> Mapping[InstanceId, Mapping[str, int]]:
        return {id: session.figures for id, session in self._sessions.items() if session.figures}

    # The agent tells

    def follow_changes(self) -> Changes:
        changes = Changes()
        self._followers.add(changes)
        return changes

    def changed(self, id: InstanceId) -> None:
        """Wake readers: the worker kept more, or was connected and may have."""
        self._sessions[id].tell()
        if not self._sessions[id].figures:
            self._unknown.set()
        for follower in self._followers:
            follower.add(id)

    def forget(self, id: InstanceId) -> None:
        """Drop all that is held of a session that was deleted."""
        self._sessions.pop(id, _Session()).tell()

    def end(self) -> None:
        self.ending = True
        for session in self._sessions.values():
            session.tell()

    def _takers(self, id: InstanceId) -> list[str]:
        """Return the consumers that must have a record before it may go."""
        return [name for name, wants in self.consumers.items() if wants(id)] or [READER]

    async def _look(self, id: InstanceId, after: int | None, limit: int, by: str = "") -> Page:
        if after is None:
            page = await self._look(id, 0, 1)
            return Page([], page.newest, page.oldest, page.newest, False)
        asked: dict[str, Any] = {"after": after, "limit": limit}
        if by in (takers := self._takers(id)):
            asked |= {"consumer": by, "consumers": takers}
        try:
            page = msgspec.convert(await self.ask(id, "messages", asked), Page)
        except msgspec.ValidationError as error:
            raise errors.TryLater(f"{_CANNOT} of {id}: {error}", code="slow") from error
        for record in page.records:
            if record.get("kind") == MESSAGE:
                record["answerable"] = whatsapp.is_answerable(str(record.get("chat", "")))
        return page
