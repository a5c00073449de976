"""Carries the journal to one webhook: in order, at least once, at the target's own pace.

The journal is the queue, so an outage costs no memory and a crash loses nothing: what was not
settled is read again. Each courier runs by itself; a slow target delays no other.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence

from agent.config import WebhookDeclaration
from agent.config.webhooks import shown_target
from agent.core.model import Category, JournalEntry
from agent.core.webhook import (
    OWN_KINDS,
    Answer,
    DeadLetter,
    Pace,
    Result,
    WebhookState,
    WebhookView,
    body_of,
    delivery_name,
    wants,
)
from agent.deliver.webhooks.backlog import PAGE, Backlog
from agent.deliver.webhooks.cursor import Place
from agent.deliver.webhooks.request import Line, Reply
from agent.deliver.webhooks.retry import AgeLimit, Patience
from agent.errors import ConfigError, StoreError
from agent.store.database import Store

log = logging.getLogger(__name__)

SAVE_EVERY = 50
"""Entries, at most, that a crash lets be sent twice."""
TICK = 60.0
"""An event that was missed is found after so long: waking is a courtesy, the journal decides."""
AFTER_FAULT = 5.0
MOST_IN_A_ROW = 10
"""Entries put aside without a delivery between them. A target that refuses more than that refuses
everything: then it is not the entry's fault, and they wait as they do for one that is down.
"""


class Courier:
    """`run` carries; the rest never waits."""

    def __init__(
        self,
        declared: WebhookDeclaration,
        store: Store,
        *,
        machine: str,
        version: str,
        results: Counter[Result],
        pace: Pace,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.declared = declared
        self._store = store
        self._machine = machine
        self._version = version
        self._results = results
        self._patience = Patience(pace, jitter)
        self._age = AgeLimit(declared.longest_age * 3600)
        self._place: Place | None = None
        self._line: Line | None = None
        self._stale = False
        self._backlog = Backlog(self._wants)
        self._in_a_row = 0
        self._problem = ""
        self._told_failing = self._told_dead = False
        self._next_try_wall: float | None = None
        self._delivered_wall: float | None = None
        self._again: list[int] = []
        """Dead letters that an operator wants tried again."""
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()

    # what others ask and tell

    def view(self) -> WebhookView:
        state = WebhookState.SENDING if self._backlog.waiting else WebhookState.IDLE
        state = WebhookState.FAILING if self._patience.failures else state
        return WebhookView(
            name=self.declared.name,
            url=shown_target(self.declared.url),
            state=state,
            circuit=self._patience.circuit,
            cursor=self._place.cursor if self._place else 0,
            waiting=self._backlog.waiting,
            oldest_wall=self._backlog.oldest_wall if self._backlog.waiting else None,
            problem=self._problem,
            next_try_wall=self._next_try_wall,
            delivered_wall=self._delivered_wall,
            dead=len(self._place.dead) if self._place else 0,
        )

    def dead(self) -> Sequence[DeadLetter]:
        return tuple(self._place.dead.values()) if self._place else ()

    def retry(self) -> int:
        """Try now, the dead letters too; how many those are."""
        self._again = [one.cursor for one in self.dead()]
        self._patience.end()
        self._in_a_row = 0
        self._hurry.set()
        self._wake.set()
        return len(self._again)

    def reopen(self) -> None:
        """Its secret or its certificates may be others: they are read before the next try."""
        self._stale = True
        self._hurry.set()

    def offer(self, entry: JournalEntry) -> None:
        """Count a new entry; the courier reads the entries it sends from the journal."""
        if self._place is None or not self._backlog.follows(entry) or self._backlog.count(entry):
            self._wake.set()

    def look(self) -> None:
        """Something may have been missed."""
        self._wake.set()

    # the life of a courier

    async def run(self) -> None:
        """Until it is cancelled; a fault of ours is logged, and it goes on from its place."""
        while True:
            try:
                await self._carry()
            except StoreError as error:
                log.error("webhook %s: %s", self.declared.name, error)
            except Exception:
                log.exception("webhook %s: internal error; it starts again", self.declared.name)
            finally:
                await self._let_go()
            await asyncio.sleep(AFTER_FAULT)

    async def _let_go(self) -> None:
        if self._line is not None:
            await self._line.close()
            self._line = None
        if self._place is not None:
            with contextlib.suppress(StoreError):
                await self._place.save()

    async def _carry(self) -> None:
        place = await self._find_place()
        self._place = place
        self._backlog.begin(place.cursor)
        await self._backlog.count_ahead(self._store)
        while True:
            self._wake.clear()
            await self._try_dead(place)
            page = await self._store.history(after=place.cursor, limit=PAGE)
            await self._mind_gap(place, page)
            for entry in page:
                self._backlog.count(entry)
                if self._wants(entry):
                    self._backlog.is_next(entry)
                    await self._settle(place, entry)
                    self._backlog.settled()
                place.cursor = max(place.cursor, entry.cursor)
                if place.unsaved >= SAVE_EVERY:
                    await place.save()
            if len(page) < PAGE:
                await place.save()
                self._backlog.caught_up(place.cursor)
                await _wait_for(self._wake, TICK)
                await self._backlog.count_ahead(self._store)

    async def _find_place(self) -> Place:
        newest = await self._store.history(limit=1)
        last = newest[0].cursor if newest else 0
        place = await Place.find(self._store, self.declared.name)
        if place is None:
            place = await Place.begin(self._store, self.declared.name, last)
            await self._say("webhook_begun", "it begins: what happens from now on is sent to it")
        elif place.cursor > last:
            # The journal was lost and counts from 1 again: all that is in it happened since.
            log.warning(
                "webhook %s: the journal was recreated; sending from its start", self.declared.name
            )
            place.cursor = 0
        return place

    async def _mind_gap(self, place: Place, page: Sequence[JournalEntry]) -> None:
        """The journal is bounded: what left it before its turn came is gone, and said to be."""
        missing = page[0].cursor - place.cursor - 1 if page else 0
        if missing <= 0 or place.cursor == 0:
            return
        self._results[Result.EXPIRED] += missing
        self._backlog.lost(missing)
        place.cursor = page[0].cursor - 1
        sentence = f"{missing} entries left the journal before they could be sent"
        await self._say("webhook_gap", sentence, bad=True)

    # one entry

    def _wants(self, entry: JournalEntry) -> bool:
        chosen = self.declared
        return wants(chosen.name, chosen.kinds, chosen.instances, entry)

    async def _settle(self, place: Place, entry: JournalEntry) -> None:
        """Returns when nothing more is to be done about it: delivered, too old, or put aside."""
        refused = 0
        while not self._age.is_over(entry.wall):
            reply = await self._send(entry)
            if reply.answer is Answer.TAKEN:
                return await self._took()
            hopeless = False
            if reply.answer is Answer.REFUSED:
                refused += 1
                hopeless = self._in_a_row >= MOST_IN_A_ROW
                if refused >= self.declared.tries and not hopeless:
                    return await self._put_aside(place, entry, reply)
            await self._failed(reply, at_fault=reply.answer is Answer.LATER or hopeless)
            await self._backlog.count_ahead(self._store)
        self._results[Result.EXPIRED] += 1
        return None

    async def _send(self, entry: JournalEntry) -> Reply:
        self._patience.begin_try()
        try:
            if self._stale and self._line is not None:
                await self._line.close()
                self._line = None
            self._stale = False
            if self._line is None:
                self._line = await Line.open(self.declared, self._version)
        except ConfigError as error:
            # Unsigned would be worse than late: the receiver could not tell it from a forgery.
            reply = Reply(Answer.LATER, problem=str(error))
        else:
            body = body_of(entry, self._machine, self._version)
            reply = await self._line.post(body, entry.kind, delivery_name(entry))
        taken = reply.answer is Answer.TAKEN
        self._results[Result.DELIVERED if taken else Result.FAILED] += 1
        return reply

    async def _took(self) -> None:
        self._delivered_wall = time.time()
        self._patience.end()
        self._in_a_row, self._told_dead = 0, False
        if self._problem:
            log.info("webhook %s takes events again", self.declared.name)
        self._problem = ""
        if self._told_failing:
            self._told_failing = False
            await self._say(
                "webhook_back", f"it takes events again; {self._backlog.waiting} waited for it"
            )

    async def _failed(self, reply: Reply, *, at_fault: bool) -> None:
        """Wait for the next try. `at_fault`: the target, not the entry."""
        if not self._problem:
            log.warning("webhook %s: %s; the agent tries again", self.declared.name, reply.problem)
        self._problem = reply.problem
        wait = self._patience.after_failure(reply.wait, at_fault=at_fault)
        if self._patience.gone and not self._told_failing:
            self._told_failing = True
            await self._say("webhook_failing", f"it takes nothing: {reply.problem}", bad=True)
        self._next_try_wall = time.time() + wait
        if await _wait_for(self._hurry, wait):
            self._hurry.clear()
        self._next_try_wall = None

    async def _put_aside(self, place: Place, entry: JournalEntry, reply: Reply) -> None:
        """Go on with the next entries. One event until the next delivery, not one per entry."""
        self._results[Result.DEAD] += 1
        self._in_a_row += 1
        self._patience.next_entry()
        self._problem = reply.problem
        await place.put_aside(entry, reply.problem)
        # What tells of a webhook tells no more of itself: two of them would answer each other.
        if not self._told_dead and not entry.kind.startswith(OWN_KINDS):
            self._told_dead = True
            sentence = f"it refused an event, which was put aside: {reply.problem}"
            await self._say("webhook_dead", sentence, bad=True)

    async def _try_dead(self, place: Place) -> None:
        """Each once more, as an operator asked; out of their order, as they are by now."""
        while self._again:
            cursor = self._again[0]
            letter = place.dead.get(cursor)
            found = await self._store.history(after=cursor - 1, limit=1)
            if letter is None or not found or found[0].cursor != cursor:
                await place.forget(cursor)  # the journal has let go of it
                self._results[Result.EXPIRED] += letter is not None
            else:
                reply = await self._send(found[0])
                if reply.answer is Answer.TAKEN:
                    await place.forget(cursor)
                    await self._took()
                else:
                    self._problem = reply.problem
                    if reply.answer is Answer.LATER:
                        self._again.clear()  # they stay where they are, for another time
                        return
            del self._again[:1]

    async def _say(self, kind: str, sentence: str, *, bad: bool = False) -> None:
        text = f"webhook {self.declared.name}: {sentence}"
        log.log(logging.WARNING if bad else logging.INFO, "%s", text)
        detail = {"webhook": self.declared.name}
        entry = JournalEntry(kind, text, Category.SYSTEM, None, time.time(), detail)
        try:
            await self._store.append(entry)
        except StoreError as error:
            log.error("%s", error)


async def _wait_for(event: asyncio.Event, seconds: float) -> bool:
    """Whether it came in time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
