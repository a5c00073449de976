"""Carries the journal to one webhook: in order, at least once, at the target's own pace.

The journal is the queue, so an outage costs no memory and a crash loses nothing: unsettled entries
are read again. Each courier runs by itself; a slow target delays no other.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence

from agent.core.model import JournalEntry
from agent.errors import StoreError
from agent.wings.webhooks.backlog import PAGE, Backlog
from agent.wings.webhooks.cursor import WebhookCursor
from agent.wings.webhooks.deliveries import (
    OWN_KINDS,
    Answer,
    DeadLetter,
    Result,
    WebhookState,
    WebhookView,
    wants,
)
from agent.wings.webhooks.request import Reply
from agent.wings.webhooks.retry import AgeLimit, TargetStanding, wait_for
from agent.wings.webhooks.settings import shown_target
from agent.wings.webhooks.target import Target
from agent.wings.webhooks.webhook import Webhook

log = logging.getLogger(__name__)

SAVE_EVERY = 50
"""Entries, at most, that a crash lets be sent twice."""
TICK = 60.0
"""Seconds after which the journal is read again without a wake-up."""
AFTER_FAULT = 5.0


class Courier:
    """`run` carries; the rest never waits."""

    def __init__(self, webhook: Webhook) -> None:
        self.declared = webhook.declared
        self._webhook = webhook
        self._store = webhook.store
        self._results = webhook.results
        self._target = Target(webhook)
        self._standing = TargetStanding(webhook, "events")
        self._age = AgeLimit(webhook.declared.longest_age * 3600)
        self._progress: WebhookCursor | None = None
        self._backlog = Backlog(self._wants)
        self._again: list[int] = []
        """Dead letters that an operator wants tried again."""
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()

    def view(self) -> WebhookView:
        state = WebhookState.SENDING if self._backlog.waiting else WebhookState.IDLE
        state = WebhookState.FAILING if self._standing.patience.failures else state
        return WebhookView(
            name=self.declared.name,
            url=shown_target(self.declared.url),
            state=state,
            circuit=self._standing.patience.circuit,
            cursor=self._progress.cursor if self._progress else 0,
            waiting=self._backlog.waiting,
            oldest_wall=self._backlog.oldest_wall if self._backlog.waiting else None,
            problem=self._standing.problem,
            next_try_wall=self._standing.next_try_wall,
            delivered_wall=self._standing.delivered_wall,
            dead=len(self._progress.dead) if self._progress else 0,
        )

    async def say_gone(self, view: WebhookView) -> None:
        """Who renames a webhook may think that what waits goes to the new name."""
        messages = view.messages or 0
        counts = {"events": view.waiting - messages, "messages": messages}
        what = " and ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        await self._webhook.report(
            "webhook_gone",
            f"agent.toml has it no longer, and {what} were not delivered; under its name again it"
            " goes on with them",
            bad=True,
        )

    def dead(self) -> Sequence[DeadLetter]:
        return tuple(self._progress.dead.values()) if self._progress else ()

    def retry(self) -> int:
        """Try now, dead letters included; returns their number."""
        self._again = [letter.cursor for letter in self.dead()]
        self._standing.retry()
        self._hurry.set()
        self._wake.set()
        return len(self._again)

    def reopen(self) -> None:
        """Read its secret and its certificates again, and try now."""
        self._target.reopen()
        self._hurry.set()

    def offer(self, entry: JournalEntry) -> None:
        """Count a new entry; the courier reads the entries it sends from the journal."""
        if self._progress is None or not self._backlog.follows(entry) or self._backlog.count(entry):
            self._wake.set()

    def look(self) -> None:
        """Read the journal again: an entry may have been missed."""
        self._wake.set()

    async def run(self) -> None:
        """Until it is cancelled; after an internal error it goes on from its progress."""
        while True:
            try:
                await self._deliver()
            except StoreError as error:
                log.error("webhook %s: %s", self.declared.name, error)
            except Exception:
                log.exception("webhook %s: internal error; it starts again", self.declared.name)
            finally:
                await self._close()
            await asyncio.sleep(AFTER_FAULT)

    async def _close(self) -> None:
        await self._target.close()
        if self._progress is not None:
            with contextlib.suppress(StoreError):
                await self._progress.save()

    async def _deliver(self) -> None:
        progress = await self._find_progress()
        self._progress = progress
        self._backlog.begin(progress.cursor)
        await self._backlog.count_ahead(self._store)
        while True:
            self._wake.clear()
            await self._try_dead(progress)
            page = await self._store.history(after=progress.cursor, limit=PAGE)
            await self._skip_gap(progress, page)
            for entry in page:
                self._backlog.count(entry)
                if self._wants(entry):
                    self._backlog.is_next(entry)
                    await self._settle(progress, entry)
                    self._backlog.settled()
                progress.cursor = max(progress.cursor, entry.cursor)
                if progress.unsaved >= SAVE_EVERY:
                    await progress.save()
            if len(page) < PAGE:
                await progress.save()
                self._backlog.caught_up(progress.cursor)
                await wait_for(self._wake, TICK)
                await self._backlog.count_ahead(self._store)

    async def _find_progress(self) -> WebhookCursor:
        newest = await self._store.history(limit=1)
        last = newest[0].cursor if newest else 0
        progress = await WebhookCursor.find(self._store, self.declared.name)
        if progress is None:
            progress = await WebhookCursor.begin(self._store, self.declared.name, last)
            await self._webhook.report("webhook_begun", "it starts with the next event")
        elif progress.cursor > last:
            # The journal was lost and counts from 1 again: all its entries are new.
            log.warning(
                "webhook %s: the journal was recreated; sending from its start", self.declared.name
            )
            progress.cursor = 0
        return progress

    async def _skip_gap(self, progress: WebhookCursor, page: Sequence[JournalEntry]) -> None:
        """Skip entries that the bounded journal dropped before they were sent, and report them."""
        missing = page[0].cursor - progress.cursor - 1 if page else 0
        if missing <= 0 or progress.cursor == 0:
            return
        self._results[Result.EXPIRED] += missing
        self._backlog.lost(missing)
        progress.cursor = page[0].cursor - 1
        sentence = f"{missing} entries left the journal before they could be sent"
        await self._webhook.report("webhook_gap", sentence, bad=True)

    def _wants(self, entry: JournalEntry) -> bool:
        chosen = self.declared
        return wants(chosen.name, chosen.kinds, chosen.instances, entry)

    async def _settle(self, progress: WebhookCursor, entry: JournalEntry) -> None:
        """Try one entry until it is delivered, too old or put aside."""
        refused = 0
        while not self._age.is_over(entry.wall):
            reply = await self._send(entry)
            if reply.answer is Answer.TAKEN:
                return await self._delivered()
            hopeless = False
            if reply.answer is Answer.REFUSED:
                refused += 1
                hopeless = self._standing.refuses_all
                if refused >= self.declared.tries and not hopeless:
                    return await self._put_aside(progress, entry, reply)
            await self._failed(reply, at_fault=reply.answer is Answer.LATER or hopeless)
            await self._backlog.count_ahead(self._store)
        self._results[Result.EXPIRED] += 1
        return None

    async def _send(self, entry: JournalEntry) -> Reply:
        self._standing.patience.begin_try()
        return await self._target.send(entry)

    async def _delivered(self) -> None:
        await self._standing.delivered(f"; {self._backlog.waiting} events waited")

    async def _failed(self, reply: Reply, *, at_fault: bool) -> None:
        """Wait for the next try."""
        wait = await self._standing.failed(reply, at_fault=at_fault)
        self._standing.next_try_wall = time.time() + wait
        if await wait_for(self._hurry, wait):
            self._hurry.clear()
        self._standing.next_try_wall = None

    async def _put_aside(self, progress: WebhookCursor, entry: JournalEntry, reply: Reply) -> None:
        """Go on with the next entries."""
        self._standing.count_dead()
        self._standing.patience.next_entry()
        self._standing.problem = reply.problem
        await progress.put_aside(entry, reply.problem)
        # No event about a webhook's own events: two webhooks would answer each other for ever.
        if not entry.kind.startswith(OWN_KINDS):
            await self._standing.report_dead("an event", reply)

    async def _try_dead(self, progress: WebhookCursor) -> None:
        """Try each dead letter once more, as an operator asked."""
        while self._again:
            cursor = self._again[0]
            letter = progress.dead.get(cursor)
            page = await self._store.history(after=cursor - 1, limit=1)
            if letter is None or not page or page[0].cursor != cursor:
                await progress.forget(cursor)  # the journal dropped it
                self._results[Result.EXPIRED] += letter is not None
            else:
                reply = await self._send(page[0])
                if reply.answer is Answer.TAKEN:
                    await progress.forget(cursor)
                    await self._delivered()
                else:
                    self._standing.problem = reply.problem
                    if reply.answer is Answer.LATER:
                        self._again.clear()  # they stay dead letters
                        return
            del self._again[:1]
