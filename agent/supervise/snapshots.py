"""Snapshots of sessions that are well, backups before a repair, and their restoring.

The copy of a running session counts only if its worker
saved before it and no file changed during it.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from agent.clock import boot_now, until_next
from agent.core.words import Category, ConnectionStatus, InstanceId, counted
from agent.errors import EngineError, LinkError, Refused, TryLater, VaultError, WaError
from agent.log import about, going_on, log
from agent.supervise.facts import Facts, entry, tell
from agent.supervise.registry import Registry
from agent.supervise.seats import Seats
from agent.vault import restore as restoring
from agent.vault import snapshots as copies

AT_ONCE = 2
"""Copies going on at the same time: disks are shared."""

T = TypeVar("T")

WAITS = (0.0, 0.25, 0.5, 1.0)
"""Seconds before each try of one snapshot."""
LOOK_EVERY, AFTER_FAILURE = 28.0, 600.0


def finish_cut_short(root: Path) -> None:
    """Finish or undo what a killed agent had begun, before sessions are read."""
    with going_on():
        for sentence in restoring.finish(root):
            log.warning("%s", sentence)
    with going_on():
        restoring.bring_back(root)


@dataclass(slots=True, eq=False, repr=False)
class Snapshots:
    registry: Registry
    seats: Seats
    _few: asyncio.Semaphore = field(init=False, default_factory=partial(asyncio.Semaphore, AT_ONCE))
    locks: defaultdict[InstanceId, asyncio.Lock] = field(
        init=False, default_factory=partial(defaultdict, asyncio.Lock)
    )
    _not_before: dict[InstanceId, float] = field(init=False, default_factory=dict)

    @property
    def root(self) -> Path:
        return self.registry.root

    async def in_thread(self, id: InstanceId, what: str, work: Callable[..., T]) -> T:
        """File work, few at a time. `work` is called with `tick`, which it calls as it goes: it
        ends at the next piece if its caller gave it up, or the agent stops."""
        async with self._few:
            given_up = False

            def tick(_count: int) -> None:
                if given_up or self.registry.stopping:
                    cause = "it was given up" if given_up else "the agent stops"
                    raise TryLater(f"cannot finish the {what} of {id}: {cause}")

            try:
                return await asyncio.to_thread(partial(work, tick=tick))
            finally:
                given_up = True

    async def snapshots(self, id: InstanceId) -> list[copies.Snapshot]:
        """Return a session's snapshots, newest first, the unusable ones too."""
        self.registry.get(id)
        return await asyncio.to_thread(copies.list_snapshots, self.root, id)

    async def back_up(self, facts: Facts, why: str) -> str:
        """Copy the files as they are, whole or not, before a destructive step; return the name."""
        try:
            return (await self.snapshot(facts.id, why, backup=True)).name
        except WaError as error:
            if error.code in ("absent", "no_session", copies.OUTSIDE):
                return "nothing, for it had no files"
            raise

    async def snapshot(self, id: InstanceId, why: str, *, backup: bool = False) -> copies.Snapshot:
        """Take a snapshot now; Refused or TryLater says why there is none."""
        facts = self.registry.get(id)
        if facts.instance.backend:
            cause = f"its session's files are on {facts.instance.backend}, not here"
            raise Refused(f"cannot make a snapshot of {id}: {cause}", code="remote")
        async with self.locks[facts.id]:
            taken = await self._take_unchanged(facts, why, backup=backup)
            keep = max(self.registry.settings.config.sessions.snapshots, 1)
            await asyncio.to_thread(copies.prune_snapshots, self.root, facts.id, keep)
        manifest = taken.manifest
        assert manifest is not None
        if manifest.good:
            facts.last_snapshot_wall, facts.snapshot_failure = manifest.taken_wall, ""
        size = f"{counted(len(manifest.listing.files), 'file')}, {manifest.listing.size} bytes"
        sentence = f"snapshot {taken.name} made ({why}): {size}, {manifest.state}"
        await self.say(facts, "snapshot", sentence, name=taken.name, state=manifest.state)
        return taken

    async def _take_unchanged(self, facts: Facts, why: str, *, backup: bool) -> copies.Snapshot:
        last, saves = "", True
        for wait in WAITS:
            await asyncio.sleep(wait)
            saves = saves and await self._ask_to_save(facts, must_save=not backup)
            row, own = facts.instance, facts.record
            subject = copies.Subject(row, own.paired, own.account, why, backup, own.needs_passkey)
            take = partial(copies.take_snapshot, self.root, subject)
            try:
                return await self.in_thread(facts.id, "snapshot", take)
            except VaultError as error:
                # A running engine may make a file that only it can read between its save and this
                # copy.
                private = error.code == "permissions" and facts.unit.runs
                if error.code != "changing" and not private:
                    raise
                last = str(error)
        raise TryLater(f"{last}; the agent tried {len(WAITS)} times", code="changing")

    async def _ask_to_save(self, facts: Facts, *, must_save: bool) -> bool:
        """Have the engine write what it has in memory. False: it cannot, do not ask again."""
        if not facts.unit.runs:
            return True
        try:
            if facts.link is None:
                raise LinkError(f"cannot ask {facts.id} to save: its worker cannot be reached")
            await facts.link.call("save", {}, timeout=self.registry.settings.config.stop.save)
        except (LinkError, EngineError) as error:
            if must_save:
                words = f"cannot make a snapshot of {facts.id}: {error}"
                raise TryLater(words, code="not_saved") from error
            as_is = "the snapshot of %s holds its files as they are on the disk: %s"
            log.info(as_is, facts.id, error, extra=about(facts.id))
            return False
        return True

    async def restore(self, id: InstanceId, name: str, *, force: bool) -> restoring.Restored:
        """Stop the worker, set its session aside, put back the snapshot. A pass starts it again."""
        facts = self.registry.get(id)
        snapshot = await asyncio.to_thread(copies.find_snapshot, self.root, id, name)
        linked = await asyncio.to_thread(copies.linked_of, self.root, snapshot)
        facts.action.interrupt_start()
        alone = self.registry.alone(id, facts.instance.engine, f"restore {name} of {id}", linked)
        async with alone, facts.busy, self.locks[id]:
            self.registry.get(id)  # it may have been deleted meanwhile
            if not force:
                what = self.root, facts.instance, snapshot
                await asyncio.to_thread(restoring.refuse_roll_back, *what)
            await asyncio.to_thread(restoring.must_have_room, self.root, snapshot)
            facts.note("restoring", f"the agent restores snapshot {name}", Category.RECOVERY)
            facts.record = replace(facts.record, stopped_run=facts.record.seen_run)
            await self.registry.save(facts)
            try:
                await self.seats.stop(facts)
                restored = await self._put_back(facts, snapshot)
                facts.forgive(paired=restored.manifest.paired, account=restored.manifest.account)
                await self.registry.save(facts)
            finally:
                self.registry.gate.wake(id)
        return restored

    @asynccontextmanager
    async def ending(self, facts: Facts) -> AsyncIterator[None]:
        """While a pairing ends: only a person puts a copy of it back, and none is made."""
        async with self.locks[facts.id]:
            await asyncio.to_thread(copies.end_copies, self.root, facts.id)
            facts.last_snapshot_wall = None
            yield

    async def must_have_room(self, facts: Facts) -> None:
        if (newest := await asyncio.to_thread(copies.newest_good, self.root, facts.id)) is not None:
            await asyncio.to_thread(restoring.must_have_room, self.root, newest)

    async def restore_newest(self, facts: Facts) -> str:
        """Restore the newest good snapshot that can be read; the session's worker does not run."""
        async with self.locks[facts.id]:
            unreadable: VaultError | None = None
            for snapshot in await asyncio.to_thread(copies.list_snapshots, self.root, facts.id):
                if snapshot.manifest is not None and snapshot.manifest.backup:
                    continue  # the evidence of a fault, perhaps of this one
                try:
                    what = self.root, facts.instance, snapshot
                    await asyncio.to_thread(restoring.refuse_roll_back, *what)
                    await self._put_back(facts, snapshot)
                    return snapshot.name
                except Refused as error:
                    if error.code == "still_running":
                        raise
                    log.info("%s", error)
                except VaultError as error:
                    if error.code not in ("damaged", "absent"):
                        raise
                    unreadable = error
                    log.error("%s", error)
        raise unreadable or VaultError(f"cannot restore {facts.id}: it has no good snapshot")

    async def _put_back(self, facts: Facts, snapshot: copies.Snapshot) -> restoring.Restored:
        why, needs = f"snapshot {snapshot.name} was restored", facts.record.needs_passkey
        what = self.root, facts.instance, snapshot, why
        work = partial(restoring.restore_snapshot, *what, needs_passkey=needs)
        restored = await self.in_thread(facts.id, "restore", work)
        facts.saved.identity = None  # the snapshot has another identity file
        before = restored.retired.name if restored.retired else "nothing"
        sentence = f"snapshot {snapshot.name} restored; the trash has the old session as {before}"
        await self.say(facts, "snapshot_restored", sentence, name=snapshot.name, trash=before)
        return restored

    async def say(self, facts: Facts, kind: str, sentence: str, **detail: object) -> None:
        said = entry(facts, kind, sentence, Category.SESSION, **detail)
        tell(said)
        await self.registry.store.note(said)

    async def run(self) -> None:
        for facts in list(self.registry.facts.values()):
            with going_on():
                newest = await asyncio.to_thread(copies.newest_good, self.root, facts.id)
                if newest is not None and newest.manifest is not None:
                    facts.last_snapshot_wall = newest.manifest.taken_wall
        while True:
            interval = self.registry.settings.config.sessions.snapshot_interval
            pause, every = min(LOOK_EVERY, max(interval / 4, 0.25)), self.registry.facts.values()
            due = [each for each in every if self._is_due(each, time.time())]
            # Those that are due together, as after a start, are taken within half an interval, and
            # those that failed hold up no others.
            most = 1 + int(len(every) * 2 * pause / max(interval, pause))
            for facts in sorted(due, key=lambda each: self._not_before.get(each.id, 0.0))[:most]:
                await self._take_by_the_clock(facts)
            await asyncio.sleep(until_next(pause))

    def _is_due(self, facts: Facts, now_wall: float) -> bool:
        chosen = self.registry.settings.config.sessions
        since, last = facts.connected_since_wall, facts.last_snapshot_wall
        wanted = chosen.snapshots and chosen.snapshot_interval and not facts.gone
        here = facts.link is not None and not facts.instance.backend  # whose server has its files
        well = facts.record.status is ConnectionStatus.CONNECTED and facts.verdict.healthy
        stable = since is not None and now_wall - since >= chosen.snapshot_stable
        # A clock that was set back must not end all snapshots.
        old = last is None or not 0 <= now_wall - last < chosen.snapshot_interval
        waits = boot_now() < self._not_before.get(facts.id, 0.0)
        return bool(wanted) and here and well and stable and old and not waits

    async def _take_by_the_clock(self, facts: Facts) -> None:
        pause = min(AFTER_FAILURE, self.registry.settings.config.sessions.snapshot_interval)
        try:
            if (taken := await self.snapshot(facts.id, "by the clock")).good:
                return
            assert taken.manifest is not None
            facts.snapshot_failure = f"its last snapshot is {taken.manifest.state}"
        except WaError as error:
            if error.code == copies.OUTSIDE:
                facts.snapshot_failure = ""  # the settings mean it so; `snapshot` tells
            elif not facts.gone:
                facts.snapshot_failure = sentence = f"the agent could not make a snapshot: {error}"
                await self.say(facts, "snapshot_failed", sentence, reason=error.code)
        self._not_before[facts.id] = boot_now() + pause
