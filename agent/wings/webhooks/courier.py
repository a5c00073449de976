"""Carries the journal, and what arrives in sessions, to one webhook: each source in order behind
its cursor, at least once, at the target's own pace.

The journal and the sessions are the queues, so an outage costs no memory and a crash loses nothing:
what is behind a cursor is read again. While the target fails, one source tries for all.
"""

import asyncio
import contextlib
import json
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from agent.clock import boot_now
from agent.core.breaker import Breaker, BreakerPolicy
from agent.core.model import Category, InstanceId, JournalEntry
from agent.core.reconnect import ReconnectPolicy, reconnect_delay
from agent.core.view import InstanceView
from agent.errors import ConfigError, NotFound, Refused, StoreError, WaError
from agent.log import about
from agent.messages.reader import Reader
from agent.store.database import Store
from agent.wings.webhooks.post import (
    OWN_KINDS,
    Answer,
    Parcel,
    Reply,
    RequestLine,
    parcel_of,
    parcel_of_record,
    wants,
)
from agent.wings.webhooks.settings import (
    WebhookDeclaration,
    consumer_of,
    gets_messages_of,
    message_kinds,
    shown_target,
)
from agent.wings.webhooks.view import WebhookView

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 1.0, 300.0
"""Seconds between two tries of a target that fails; they double."""
CIRCUIT = BreakerPolicy(5, 60.0)
"""Failures in a row after which the target counts as failing, and the least pause from then on."""
MOST_IN_A_ROW = 10
"""Given up without a delivery between them. A target that refuses more than that refuses
everything: then it is tried as one that is down."""
EVENTS, RECORDS = 100, 50
"""Read at once from the journal, and from a session."""
SESSIONS, POSTS = 32, 8
"""Sessions whose records are in memory, and posts under way, at most."""
SAVE_EVERY = 0.5
"""Seconds of deliveries, at most, that a kill lets be sent twice."""
COUNT_EVERY = 5.0
"""Seconds between two counts of the events and messages that wait."""
TICK = 60.0
"""Seconds after which the journal is read again without a wake-up."""
AFTER_FAULT = 5.0
CLOCK_JUMP = 3600.0
"""Seconds that the wall clock may gain on the boot clock; beyond them it was set."""
GAP = "message_gap"
_FORGOTTEN_AFTER = 90 * 86_400.0
"""Seconds after which the cursor of a session that is gone goes too."""
_EVENTS, _RECORDS, _BEGUN = "webhook.", "webhook_message.", "webhook_messages."
_DOUBLING = ReconnectPolicy(factor=2.0, jitter=0.0)


def next_wait(failures: int, asked: float, share: float) -> float:
    """Seconds to the next try: a share of what doubles with the failures, at least `asked`."""
    longest = reconnect_delay(failures - 1, _DOUBLING, FIRST_WAIT, LONGEST_WAIT, 0.0)
    return max(longest * share, asked)


class Courier:
    """`run` carries; the rest never waits."""

    def __init__(
        self,
        declared: WebhookDeclaration,
        store: Store,
        reader: Reader,
        results: Counter[str],
        sender: tuple[str, str],
        *,
        views: Callable[[], Mapping[InstanceId, InstanceView]],
    ) -> None:
        """`sender`: machine and version."""
        self.declared = declared
        self.cursor = 0
        """All events up to it are settled; 0: it has not looked where it begins."""
        self.given_up = 0
        self._store, self._results, self._sender, self._views = store, results, sender, views
        self._reader, self._gets_messages = reader, bool(message_kinds(declared))
        self._kinds = (*message_kinds(declared), GAP)
        self._line: RequestLine | None = None
        self._opening, self._stale = asyncio.Lock(), False
        self._apart = time.time() - boot_now()
        self._news, self._hurry = asyncio.Event(), asyncio.Event()
        # The target.
        self._breaker, self._failures, self._in_a_row = Breaker(), 0, 0
        self._next_try = 0.0
        self._problem, self._told_failing = "", False
        self._next_try_wall: float | None = None
        self._delivered_wall: float | None = None
        self._alone, self._posts = asyncio.Lock(), asyncio.Semaphore(POSTS)
        # The events that wait.
        self._waiting = 0
        self._oldest_wall: float | None = None
        self._uncounted = asyncio.Event()
        # The sessions.
        self._group: asyncio.TaskGroup | None = None
        self._lanes: dict[InstanceId, asyncio.Task[None]] = {}
        self._more: set[InstanceId] = set()
        """Sessions that may have more than was looked at."""
        self._reads = asyncio.Semaphore(SESSIONS)
        self._cursors: dict[InstanceId, tuple[int, float]] = {}
        """All up to it is settled, and when the session was created."""
        self._behind: dict[InstanceId, int] = {}
        """How many records waited at the last count."""
        self._tried: dict[InstanceId, float] = {}
        """When that was kept which is tried now."""

    # For others

    def look(self) -> None:
        """There may be new events."""
        self._news.set()
        self._uncounted.set()

    def retry(self) -> None:
        """Try now, whatever failed before."""
        self._works()
        self._hurry.set()
        self._news.set()

    def reopen(self) -> None:
        """Read its secret and its certificates again, and try now."""
        self._stale = True
        self._hurry.set()

    def view(self) -> WebhookView:
        behind = sum(self._behind.get(id, 0) for id in self._lanes)
        messages = behind if self._gets_messages else None
        waiting = self._waiting + (messages or 0)
        walls = [wall for wall in (self._oldest_wall, *self._tried.values()) if wall is not None]
        state = "failing" if self._failures else "sending" if waiting else "idle"
        return WebhookView(
            name=self.declared.name,
            url=shown_target(self.declared.url),
            state=state,
            circuit=str(self._breaker.state(boot_now(), CIRCUIT)),
            cursor=self.cursor,
            waiting=waiting,
            oldest_wall=min(walls) if waiting and walls else None,
            problem=self._problem,
            next_try_wall=self._next_try_wall,
            delivered_wall=self._delivered_wall,
            dead=self.given_up,
            messages=messages,
        )

    async def say_gone(self) -> None:
        """Who renames a webhook may think that what waits goes to the new name."""
        view, name = self.view(), self.declared.name
        sentence = (
            f"it is gone from agent.toml, and {view.waiting} events and messages wait for it: they"
            f" are sent when a webhook is called {name} again, and to no other"
        )
        await self._report("webhook_gone", sentence, bad=True)

    # Its life

    async def run(self) -> None:
        """Until it is cancelled; after an internal error it goes on from its cursors."""
        name = self.declared.name
        while True:
            try:
                async with asyncio.TaskGroup() as self._group:
                    self._group.create_task(self._carry_events(), name=f"webhook {name}: events")
                    self._group.create_task(self._count_waiting(), name=f"webhook {name}: count")
                    if self._gets_messages:
                        self._group.create_task(self._follow_sessions())
            except* StoreError as errors:
                log.error("webhook %s: %s", name, errors.exceptions[0])
            except* Exception:
                log.exception("webhook %s: internal error; it starts again", name)
            finally:
                self._group = None
                await self._close()
            await asyncio.sleep(AFTER_FAULT)

    # Events

    async def _carry_events(self) -> None:
        await self._find_place()
        saved, saved_at = self.cursor, boot_now()
        try:
            while True:
                self._news.clear()
                page = await self._store.history(after=self.cursor, limit=EVENTS)
                if page:
                    await self._say_gap(page[0])
                for entry in page:
                    if self._wants(entry):
                        await self._settle(parcel_of(entry, *self._sender))
                    self.cursor = max(self.cursor, entry.cursor)
                    if boot_now() - saved_at >= SAVE_EVERY:
                        saved, saved_at = self.cursor, boot_now()
                        await self._store.put_fact(_EVENTS + self.declared.name, str(saved))
                self._uncounted.set()
                if len(page) < EVENTS:
                    if self.cursor != saved:
                        saved, saved_at = self.cursor, boot_now()
                        await self._store.put_fact(_EVENTS + self.declared.name, str(saved))
                    await _first(self._news, TICK)
        finally:
            if self.cursor != saved:
                with contextlib.suppress(StoreError):
                    await self._store.put_fact(_EVENTS + self.declared.name, str(self.cursor))

    async def _find_place(self) -> None:
        name, newest = self.declared.name, await self._store.history(limit=1)
        last = newest[0].cursor if newest else 0
        text = await self._store.get_fact(_EVENTS + name)
        if text is None:
            self.cursor = last
            await self._store.put_fact(_EVENTS + name, str(last))
            await self._report("webhook_begun", "it starts with the next event")
        elif (cursor := int(text)) > last:
            log.warning("webhook %s: the journal was made anew: it is sent from its start", name)
            self.cursor = 0
        else:
            self.cursor = cursor

    async def _say_gap(self, first: JournalEntry) -> None:
        """The bounded journal dropped entries before they were sent."""
        missing = first.cursor - self.cursor - 1
        if missing <= 0 or self.cursor == 0:
            return
        if await self._store.history(before=first.cursor, limit=1):
            return  # the numbers between were never given
        self._results["expired"] += missing
        self.cursor = first.cursor - 1
        sentence = f"{missing} entries left the journal before they could be sent"
        await self._report("webhook_gap", sentence, bad=True)

    def _wants(self, entry: JournalEntry) -> bool:
        chosen = self.declared
        return wants(chosen.name, chosen.kinds, chosen.instances, entry)

    async def _count_waiting(self) -> None:
        chosen = self.declared
        while True:
            await self._uncounted.wait()
            self._uncounted.clear()
            self._waiting, self._oldest_wall = await self._store.count_after(
                self.cursor, chosen.kinds, chosen.instances, but_of=chosen.name
            )
            for id in list(self._lanes):
                asked = {"after": self._cursors.get(id, (0, 0.0))[0]}
                with contextlib.suppress(WaError):
                    found = await self._reader.ask(id, "messages_behind", asked)
                    self._behind[id] = int(found["count"])
            await asyncio.sleep(COUNT_EVERY)

    # Sessions

    async def _follow_sessions(self) -> None:
        changes, name = self._reader.follow_changes(), self.declared.name
        try:
            begun = await self._store.get_fact(_BEGUN + name)
            if begun is None:
                begun = "0.0" if self.declared.oldest else repr(time.time())
                await self._store.put_fact(_BEGUN + name, begun)
            there = [id for id, view in self._views().items() if not view.instance.backend]
            await self._find_cursors(there)
            while True:
                for id in there:
                    self._begin(id, float(begun))
                there = list(await changes.next())
        finally:
            changes.close()

    async def _find_cursors(self, there: list[InstanceId]) -> None:
        prefix, due = f"{_RECORDS}{self.declared.name}.", time.time() - _FORGOTTEN_AFTER
        for fact, text in (await self._store.get_facts(prefix)).items():
            id, row = InstanceId(fact.removeprefix(prefix)), json.loads(text)
            if id not in there and row["at"] < due:
                await self._store.forget_facts([fact])
            else:
                self._cursors[id] = (int(row["cursor"]), float(row["born"]))

    def _begin(self, id: InstanceId, begun_wall: float) -> None:
        if self._group is None or not gets_messages_of(self.declared, id):
            return
        self._more.add(id)
        self._uncounted.set()
        if id not in self._lanes:
            lane = self._carry_session(id, begun_wall)
            name = f"webhook {self.declared.name}: {id}"
            self._lanes[id] = self._group.create_task(lane, name=name)

    async def _carry_session(self, id: InstanceId, begun: float) -> None:
        """Until it has no more; the next word of its worker begins that again."""
        pause = 0.0
        try:
            while id in self._more:
                self._more.discard(id)
                try:
                    await self._carry_records(id, begun)
                    pause = 0.0
                except (Refused, NotFound):
                    pass  # its worker does not run, or keeps nothing
                except WaError as error:
                    bad = isinstance(error, StoreError)
                    level = logging.ERROR if bad else logging.DEBUG
                    log.log(level, "webhook %s: %s", self.declared.name, error, extra=about(id))
                    self._more.add(id)
                    pause = min(max(pause * 2, 1.0), TICK)
                    await asyncio.sleep(pause)
        finally:
            del self._lanes[id]

    async def _carry_records(self, id: InstanceId, begun: float) -> None:
        if (view := self._views().get(id)) is None:
            raise NotFound(f"cannot read messages of {id}: it was deleted")
        born, more = view.instance.created_wall, True
        while more:
            async with self._reads:
                cursor, whose = self._cursors.get(id, (0, -1.0))
                if whose != born:  # the webhook has none of this session yet
                    asked = {"after": 0, "since": begun}
                    found = await self._reader.ask(id, "messages_behind", asked)
                    cursor = int(found["before"]) if begun > 0 else 0
                    await self._save_cursor(id, cursor, born)
                page = await self._reader.page(id, cursor, limit=RECORDS)
                more, saved_at = page.more, boot_now()
                for record in page.records:
                    if self._wants_record(record):
                        parcel = parcel_of_record(id, record, *self._sender)
                        self._tried[id] = parcel.wall
                        try:
                            await self._settle(parcel)
                        finally:
                            del self._tried[id]
                    cursor = int(record["cursor"])
                    if boot_now() - saved_at >= SAVE_EVERY:
                        await self._save_cursor(id, cursor, born)
                        saved_at = boot_now()
                if page.next != self._cursors[id][0]:
                    await self._save_cursor(id, page.next, born)
            self._reader.settle(consumer_of(self.declared), id, page.next)

    def _wants_record(self, record: Mapping[str, Any]) -> bool:
        return any(fnmatchcase(str(record.get("kind")), pattern) for pattern in self._kinds)

    async def _save_cursor(self, id: InstanceId, cursor: int, born: float) -> None:
        row = json.dumps({"cursor": cursor, "born": born, "at": time.time()})
        await self._store.put_fact(f"{_RECORDS}{self.declared.name}.{id}", row)
        self._cursors[id] = (cursor, born)

    # One parcel

    async def _settle(self, parcel: Parcel) -> None:
        """Return when it is delivered, too old or given up."""
        refused = 0
        while not self._is_too_old(parcel.wall):
            reply = await self._try_in_turn(parcel)
            if reply.answer is Answer.TAKEN:
                return
            if reply.answer is Answer.REFUSED and self._in_a_row < MOST_IN_A_ROW:
                refused += 1
                if refused >= self.declared.tries:
                    await self._give_up(parcel, reply)
                    return
                await self._pause(next_wait(refused, reply.wait, random.random()))
        self._results["expired"] += 1

    def _is_too_old(self, wall: float) -> bool:
        now_wall = time.time()
        if now_wall - boot_now() - self._apart > CLOCK_JUMP:
            return False  # the clock was set: ages by it are wrong
        return now_wall - wall > self.declared.longest_age * 3600

    async def _try_in_turn(self, parcel: Parcel) -> Reply:
        while True:
            if self._failures:
                async with self._alone:
                    if self._failures:
                        await self._pause(self._next_try - boot_now())
                        return await self._try(parcel)
            async with self._posts:
                if not self._failures:
                    return await self._try(parcel)

    async def _pause(self, seconds: float) -> None:
        """Until the next try, or until a person wants it now."""
        self._next_try_wall = time.time() + max(seconds, 0.0)
        self._hurry.clear()
        await _first(self._hurry, max(seconds, 0.0))
        self._next_try_wall = None

    async def _try(self, parcel: Parcel) -> Reply:
        failures = self._failures
        self._breaker = self._breaker.after_try(boot_now(), CIRCUIT)
        try:
            line = await self._opened()
        except ConfigError as error:
            # Unsigned would be worse than late: the receiver could not tell it from a forgery.
            reply = Reply(Answer.LATER, problem=str(error))
        else:
            reply = await line.post(parcel)
        if reply.answer is Answer.TAKEN:
            self._results["delivered"] += 1
            await self._delivered()
            return reply
        self._results["failed"] += 1
        if not self._problem:
            log.warning("webhook %s: %s; it is tried again", self.declared.name, reply.problem)
        self._problem = reply.problem
        refuses_all = self._in_a_row >= MOST_IN_A_ROW
        # Tries side by side fail as one.
        if (reply.answer is Answer.LATER or refuses_all) and failures == self._failures:
            await self._failed(reply)
        return reply

    async def _failed(self, reply: Reply) -> None:
        now = boot_now()
        self._failures += 1
        self._breaker = self._breaker.after_failure(now, CIRCUIT)
        wait = next_wait(self._failures, reply.wait, random.random())
        self._next_try = now + max(wait, self._breaker.opens_in(now, CIRCUIT))
        if self._breaker.opened_at is not None and not self._told_failing:
            self._told_failing = True
            await self._report("webhook_failing", f"deliveries fail: {reply.problem}", bad=True)

    async def _delivered(self) -> None:
        self._delivered_wall = time.time()
        self._works()
        if self._problem:
            log.info("webhook %s takes events again", self.declared.name)
        self._problem = ""
        if self._told_failing:
            self._told_failing = False
            await self._report("webhook_back", "deliveries work again")

    def _works(self) -> None:
        self._breaker, self._failures, self._in_a_row = Breaker(), 0, 0

    async def _give_up(self, parcel: Parcel, reply: Reply) -> None:
        self._results["dead"] += 1
        self.given_up += 1
        self._in_a_row += 1
        # No event about a webhook's own events: two webhooks would answer each other for ever.
        if not parcel.kind.startswith(OWN_KINDS):
            what = f"{parcel.what} ({parcel.kind})"
            sentence = f"it refused {what}, which is given up: {reply.problem}"
            await self._report("webhook_dead", sentence, bad=True)

    async def _opened(self) -> RequestLine:
        async with self._opening:
            if self._stale:
                await self._close()
            if self._line is None:
                self._line = await RequestLine.open(self.declared, self._sender[1])
            return self._line

    async def _close(self) -> None:
        line, self._line, self._stale = self._line, None, False
        if line is not None:
            await line.close()

    async def _report(self, kind: str, sentence: str, *, bad: bool = False) -> None:
        name = self.declared.name
        text = f"webhook {name}: {sentence}"
        log.log(logging.WARNING if bad else logging.INFO, "%s", text)
        detail = {"webhook": name}
        await self._store.note(JournalEntry(kind, text, Category.SYSTEM, None, time.time(), detail))


async def _first(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set or the time is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
