"""Keeps a copy of each session of this machine in the fleet's database, under the session's epoch.

A small store is copied soon after it changed, while its worker runs; a browser profile when a
snapshot of it was made. A copy that the database refuses is the sign of another owner: no further
one is sent.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agent.clock import boot_now
from agent.core.model import InstanceId
from agent.engines.catalog import entry_of
from agent.errors import Refused, WaError
from agent.fleet.coordinator import Owned
from agent.fleet.copies.take import Seen, Taken, look, take_copy
from agent.log import about
from agent.supervise.facts import Facts
from agent.supervise.fleet.arrivals import NO_PROFILES
from agent.supervise.fleet.stored.replica import Chain, Mark, Replica
from agent.supervise.fleet.stored.writing import CopyWriting
from agent.supervise.identities import ended_of, identity_of
from agent.supervise.registry import Registry
from agent.vault.locate import SESSION

if TYPE_CHECKING:
    from agent.supervise.fleet.stored.profiles import Profiles

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Copies on their way to the database."""
WHOLE = 60.0
"""Seconds until a change is tried again where the fleet wanted a whole copy."""
SHARE = 5.0
"""A session's copies take at most one part in so many of the time."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds until the next try after a failure."""
DOUBTED = 60.0
"""Seconds before the database went away: what it took then may have gone with it."""
PATIENCE = 10.0
"""Seconds that a store may be in the middle of something, such as a pairing, before it is said."""
_PASSING = ("changing", "not_whole")


@dataclass(slots=True, eq=False, repr=False)
class Replicas:
    writing: CopyWriting
    registry: Registry
    root: Path
    lag: float
    """Seconds after a change until its copy is stored."""
    owned: Callable[[], Mapping[InstanceId, Owned]]
    """Those whose newest files are here."""
    profiles: "Profiles | None" = None
    trouble: Callable[[], tuple[str, bool]] = lambda: ("", False)
    """Why owners are halted ("" = they are not), and whether the database is away."""
    _trouble: tuple[str, bool] = field(init=False, default=("", False))
    _of: dict[InstanceId, Replica] = field(init=False, default_factory=dict)
    _few: asyncio.Semaphore = field(init=False, default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _packing: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _saving: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _whole_until: float = field(init=False, default=0.0)
    """While the fleet's tables, or a program of it, are too old for changes."""
    _not_before: float = field(init=False, default=0.0)
    """While the database is away, nothing is packed for it."""
    _pause: float = field(init=False, default=FIRST_PAUSE)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                begun = boot_now()
                await self._look_at_all(group)
                await asyncio.sleep(max(self.lag / 4 - (boot_now() - begun), 0.05))

    async def flush(self, facts: Facts) -> Replica:
        """The exact copy of a stopped session: it was read back when this returns."""
        owned = self.owned().get(facts.id)
        if owned is None:
            raise Refused(f"cannot copy {facts.id}: this machine does not own it", code="not_owned")
        self.refuse_unfit(facts)
        if facts.unit.runs:
            raise Refused(f"cannot copy {facts.id}: its worker runs", code="still_running")
        replica = self._replica(facts.id, owned.epoch)
        async with replica.turn:
            if entry_of(facts.instance.engine).profile:
                await self._flush_profile(facts, replica)
            else:
                await self._send(facts, replica, exact=True)
        return replica

    async def store_rest(self) -> Collection[InstanceId]:
        """Copy what the sessions saved when they were closed. Returns those whose last change is
        not stored."""
        owned = self.owned()
        here = [it for it in self.registry.facts.values() if it.id in owned and self._copies(it)]
        looked = await asyncio.to_thread(self._look, here)
        changed = [
            (facts, self._replica(facts.id, owned[facts.id].epoch), mark)
            for facts, (mark, _) in zip(here, looked, strict=True)
            if mark is not None
        ]
        behind = [each for each in changed if each[2] != each[1].mark and not each[1].refused]
        await asyncio.gather(*(self._copy(*each) for each in behind))
        return [facts.id for facts, replica, _ in behind if replica.problem]

    def of(self, id: InstanceId) -> Replica | None:
        return self._of.get(id)

    def behind(self, id: InstanceId) -> tuple[float, str]:
        """Seconds since its oldest change that its stored copy lacks, and why there is no newer."""
        replica = self._of.get(id)
        if replica is None or (replica.changed_at is None and not replica.problem):
            return 0.0, ""
        return boot_now() - (replica.changed_at or boot_now()), replica.problem

    def behind_seconds(self) -> float:
        """The age of the oldest change that no stored copy holds."""
        since = [it.changed_at for it in self._of.values() if it.changed_at is not None]
        return boot_now() - min(since) if since else 0.0

    def behind_for(self, seconds: float) -> list[InstanceId]:
        """Those whose stored copy lacks changes for so long."""
        since = boot_now() - seconds
        known = self._of.items()
        return [id for id, it in known if it.changed_at is not None and it.changed_at <= since]

    def stored_bytes(self) -> int:
        return sum(replica.size for replica in self._of.values())

    async def _look_at_all(self, group: asyncio.TaskGroup) -> None:
        self._doubt_what_may_be_lost()
        owned = self.owned()
        for id in self._of.keys() - owned.keys():
            del self._of[id]
        here = [it for it in self.registry.facts.values() if it.id in owned and self._copies(it)]
        looked = await asyncio.to_thread(self._look, here)
        now = boot_now()
        for facts, (mark, quiet) in zip(here, looked, strict=True):
            replica = self._replica(facts.id, owned[facts.id].epoch)
            if mark is None or mark == replica.mark or replica.refused:
                replica.changed_at = None
                continue
            replica.changed_at = replica.changed_at or now
            waited = now - replica.changed_at >= self.lag / 2
            if replica.failed is not None and mark != replica.failed:
                replica.not_before = min(replica.not_before, now + self.lag / 2)
                replica.failed = None
            due = now >= max(replica.not_before, self._not_before) and (quiet or waited)
            if due and not replica.turn.locked():
                group.create_task(self._copy(facts, replica, mark), name=f"copy {facts.id}")

    def _doubt_what_may_be_lost(self) -> None:
        """Copies that the database took before it went away, or lost with other records."""
        before, self._trouble = self._trouble, self.trouble()
        if self._trouble == before:
            return
        lost = self._trouble[0] != before[0]
        since = 0.0 if lost else boot_now() - DOUBTED
        for replica in self._of.values():
            if lost:  # refused by records that are not the newest
                replica.refused = False
                replica.not_before = 0.0
            if replica.stored_at is not None and replica.stored_at >= since:
                replica.mark = replica.chain = None

    def _look(self, here: Sequence[Facts]) -> list[tuple[Mark | None, bool]]:
        return [self._mark(facts) for facts in here]

    def _mark(self, facts: Facts) -> tuple[Mark | None, bool]:
        if entry_of(facts.instance.engine).profile:
            taken = facts.last_snapshot_wall
            return (None if taken is None else (taken,)), True
        stamp, quiet = look(self.root / facts.id / SESSION)
        if stamp is None:
            return None, quiet
        record = facts.record
        return (*stamp, record.paired, record.account, record.needs_passkey, ended_of(facts)), quiet

    def _copies(self, facts: Facts) -> bool:
        profile = entry_of(facts.instance.engine).profile
        return not facts.instance.backend and (not profile or self.profiles is not None)

    def _replica(self, id: InstanceId, epoch: int) -> Replica:
        replica = self._of.get(id)
        if replica is None or replica.epoch != epoch:
            replica = self._of[id] = Replica(epoch)
        return replica

    def refuse_unfit(self, facts: Facts) -> None:
        """What never moves to another machine."""
        if facts.instance.backend:
            raise Refused(
                f"cannot copy {facts.id}: its session's files are on {facts.instance.backend}",
                code="on_a_backend",
            )
        if not self._copies(facts):
            raise Refused("cannot move: " + NO_PROFILES.format(id=facts.id), code="no_profiles")

    async def _copy(self, facts: Facts, replica: Replica, mark: Mark) -> None:
        """One try; the next look sees whether another is needed."""
        async with replica.turn:
            try:
                if entry_of(facts.instance.engine).profile:
                    await self._save_profile(facts, replica)
                else:
                    await self._send(facts, replica, exact=False)
            except WaError as error:
                self._failed(facts, replica, error, mark)
            else:
                self._pause, replica.problem, replica.said = FIRST_PAUSE, "", ""
                pause = max(self.lag / 2, (SHARE - 1) * replica.seconds)
                replica.not_before = boot_now() + pause

    def _failed(self, facts: Facts, replica: Replica, error: WaError, mark: Mark) -> None:
        now = boot_now()
        replica.problem = str(error)
        if error.code == "fleet_database":  # which the keeper of the lease says
            self._not_before = now + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
            return
        if error.code == "changing":
            replica.not_before = now + self.lag
        else:
            replica.not_before, replica.failed = now + LONGEST_PAUSE, mark
        waited = now - (replica.changed_at or now)
        if replica.problem != replica.said and (error.code not in _PASSING or waited > PATIENCE):
            replica.said = replica.problem
            log.error("%s", replica.problem, extra=about(facts.id))

    async def _send(self, facts: Facts, replica: Replica, *, exact: bool) -> None:
        """What changed since the last copy; of a stopped session all of it."""
        async with self._few:
            begun = boot_now()
            mark, quiet = await asyncio.to_thread(self._mark, facts)
            follows = not exact and begun >= self._whole_until
            if not (follows and await self._send_change(facts, replica)):
                replica.chain = None
                async with self._packing:  # it takes the processor for long
                    taken = await self._take(facts, exact=exact)
                number = await self.writing.copy(facts, replica, taken.packed, exact=exact)
                replica.chain = Chain(taken.seen, number, len(taken.packed))
        replica.seconds = boot_now() - begun
        # A change within the same tick of the clock would not show: then it is copied once more.
        replica.mark = mark if quiet or exact else None

    async def _send_change(self, facts: Facts, replica: Replica) -> bool:
        """False: a whole copy is wanted."""
        chain, replica.chain = replica.chain, None  # a change whose answer is lost may be stored
        if chain is None or not chain.goes_on:
            return False
        taken = await self._take(facts, known=chain.seen)
        if not chain.takes(len(taken.packed)):
            return False
        number = await self.writing.change(facts, replica, taken.packed, chain.number)
        if number is None:
            self._whole_until = boot_now() + WHOLE
            return False
        replica.chain = chain.with_one(taken.seen, number, len(taken.packed))
        return True

    async def _take(self, facts: Facts, *, exact: bool = False, known: Seen | None = None) -> Taken:
        identity, wall = identity_of(facts), time.time()
        return await asyncio.to_thread(
            take_copy, self.root, identity, exact=exact, wall=wall, known=known
        )

    async def _save_profile(self, facts: Facts, replica: Replica) -> None:
        assert self.profiles is not None
        async with self._saving:
            begun, taken = boot_now(), facts.last_snapshot_wall
            pointer = await self.profiles.save(facts, replica.epoch)
            if pointer is not None:
                await self.writing.copy(facts, replica, pointer, exact=False)
            replica.seconds, replica.mark = boot_now() - begun, (taken,)
            if pointer is not None:
                await self.profiles.tidy(facts.id, pointer)

    async def _flush_profile(self, facts: Facts, replica: Replica) -> None:
        """Not behind other sessions' profiles, for this session is stopped."""
        assert self.profiles is not None
        pointer = await self.profiles.flush(facts, replica.epoch)
        await self.writing.copy(facts, replica, pointer, exact=True)
