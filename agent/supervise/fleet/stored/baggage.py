"""Keeps in the fleet's database what wings have of this machine's sessions besides their files: in
sealed pieces, of which only what changed is sent."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.clock import boot_now
from agent.core.fleet.baggage import Bag, Packing
from agent.core.model import InstanceId
from agent.errors import Refused, TryLater, VaultError, WaError
from agent.failpoint import failpoint
from agent.fleet.coordinator import Member, Owned
from agent.fleet.key import FleetKey, piece_context
from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.log import about
from agent.supervise.fleet.stored.arriving_baggage import TRIP, ArrivingBaggage

log = logging.getLogger(__name__)

LARGEST_WRITE = 4 << 20
"""Bytes after which a write ends and another one begins."""
AT_ONCE = 4
LOOK_AGAIN = 60.0
"""Seconds until older tables are looked at again."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
FOLLOWS_WITHIN = 30.0
SHARE = 5.0
"""A session's pieces take at most one part in so many of the time."""


@dataclass(slots=True, eq=False)
class Stored:
    """How far the stored pieces of one session are. Times are of the boot clock."""

    epoch: int
    mark: Hashable = None
    number: int | None = None
    """Of the last write; None: what is stored was not read yet."""
    fresh: bool = True
    changed_at: float | None = None
    not_before: float = 0.0
    pause: float = FIRST_PAUSE
    problem: str = ""
    refused: bool = False
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True, eq=False, repr=False)
class Baggage:
    coordinator: PostgresCoordinator
    key: FleetKey
    root: Path
    lag: float
    """Seconds after a change until it is stored."""
    member: Callable[[], Member]
    owned: Callable[[], Mapping[InstanceId, Owned]]
    """Those whose newest files are here."""
    trouble: Callable[[], tuple[str, bool]] = lambda: ("", False)
    """Why owners are halted ("" = they are not), and whether the database is away."""
    bags: Mapping[str, Bag] = field(default_factory=dict)
    """By the wing's name."""
    _trouble: tuple[str, bool] = field(init=False, default=("", False))
    _no_place_until: float = field(init=False, default=0.0)
    """While the tables are older and have no place for pieces."""
    _of: dict[InstanceId, Stored] = field(init=False, default_factory=dict)
    _few: asyncio.Semaphore = field(init=False, default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                self._look_at_all(group)
                await asyncio.sleep(self.lag / 4)

    async def flush(self, id: InstanceId) -> None:
        """All of a stopped session; it is stored whole when this returns."""
        owned = self.owned().get(id)
        if owned is None:
            raise Refused(f"cannot store {id}: this machine does not own it", code="not_owned")
        stored = self._stored(id, owned.epoch)
        async with stored.turn:
            await self._store(id, stored, exact=True)

    async def store_rest(self) -> Collection[InstanceId]:
        """Store what came until the sessions were closed. Returns those of which not all is."""
        owned = self.owned()
        if boot_now() < self._no_place_until:
            return ()
        # A worker tells of its newest record a moment later: which of them has more, only it knows.
        kept = [(id, self._stored(id, owned[id].epoch)) for id in owned if self._mark(id)]
        kept = [(id, stored) for id, stored in kept if not stored.refused]
        await asyncio.gather(*(self._try(id, stored) for id, stored in kept))
        return [id for id, stored in kept if stored.problem]

    async def leave(self, id: InstanceId) -> None:
        await asyncio.gather(*(bag.leave(id) for bag in self.bags.values()))

    async def follow(self, id: InstanceId) -> None:
        """What goes from machine to machine by itself, once the session is there."""
        try:
            async with asyncio.timeout(FOLLOWS_WITHIN):
                await asyncio.gather(*(bag.follow(id) for bag in self.bags.values()))
        except TimeoutError:
            log.warning("what waits to be sent follows later", extra=about(id))

    def stay(self, id: InstanceId) -> None:
        """It goes on here: what was stored for its journey is not all of it any more."""
        if (stored := self._of.get(id)) is not None:
            stored.mark, stored.fresh = None, True
        for bag in self.bags.values():
            bag.stay(id)

    def behind(self, id: InstanceId) -> tuple[float, str]:
        """Seconds since its oldest change that is not stored, and why it is not."""
        stored = self._of.get(id)
        if stored is None or stored.changed_at is None:
            return 0.0, ""
        return boot_now() - stored.changed_at, stored.problem

    def behind_seconds(self) -> float:
        since = [it.changed_at for it in self._of.values() if it.changed_at is not None]
        return boot_now() - min(since) if since else 0.0

    async def fetch(self, owned: Owned) -> Path | None:
        """What goes beside the files of a session that arrives, in a folder of its own; None:
        nothing of it is stored."""
        return await ArrivingBaggage(self.coordinator, self.key, self.root, self.bags).fetch(owned)

    def _look_at_all(self, group: asyncio.TaskGroup) -> None:
        self._doubt_what_may_be_lost()
        owned, now = self.owned(), boot_now()
        if now < self._no_place_until:
            return
        for id in self._of.keys() - owned.keys():
            del self._of[id]
        for id, session in owned.items():
            mark = self._mark(id)
            if mark is None:
                continue
            stored = self._stored(id, session.epoch)
            if mark == stored.mark or stored.refused:
                stored.changed_at = None
                continue
            stored.changed_at = stored.changed_at or now
            due = now >= max(stored.not_before, stored.changed_at + self.lag / 2)
            if due and not stored.turn.locked():
                group.create_task(self._try(id, stored), name=f"baggage {id}")

    def _doubt_what_may_be_lost(self) -> None:
        """What the database took before it went away, or lost with other records."""
        before, self._trouble = self._trouble, self.trouble()
        if self._trouble != before:
            self._of.clear()

    def _mark(self, id: InstanceId) -> Hashable:
        marks = tuple(bag.mark(id) for bag in self.bags.values())
        return marks if any(mark is not None for mark in marks) else None

    def _stored(self, id: InstanceId, epoch: int) -> Stored:
        stored = self._of.get(id)
        if stored is None or stored.epoch != epoch:
            stored = self._of[id] = Stored(epoch)
        return stored

    async def _try(self, id: InstanceId, stored: Stored) -> None:
        """The next look sees whether another is needed."""
        async with stored.turn, self._few:
            begun = boot_now()
            try:
                await self._store(id, stored, exact=False)
            except WaError as error:
                stored.not_before = boot_now() + stored.pause
                stored.pause = min(stored.pause * 2, LONGEST_PAUSE)
                if str(error) != stored.problem and error.code != "fleet_database":
                    log.error("%s", error, extra=about(id))
                stored.problem = str(error)
            except Exception:  # of one session: the others go on
                log.exception("internal error: nothing of it is stored", extra=about(id))
                stored.not_before = boot_now() + LONGEST_PAUSE
            else:
                stored.pause, stored.problem = FIRST_PAUSE, ""
                took = boot_now() - begun
                stored.not_before = boot_now() + max(self.lag / 2, (SHARE - 1) * took)

    async def _store(self, id: InstanceId, stored: Stored, *, exact: bool) -> None:
        mark, fresh = self._mark(id), stored.fresh or exact
        if stored.number is None and not await self._read_number(id, stored):
            self._no_place_until, stored.changed_at = boot_now() + LOOK_AGAIN, None
            if exact:
                await self._say_what_stays(id)
            return
        stored.fresh = True  # until all of it is there
        packings = {
            wing: await bag.pack(id, fresh=fresh, exact=exact) for wing, bag in self.bags.items()
        }
        assert stored.number is not None
        number = stored.number + 1
        await self._write(id, stored, number, packings, exact=exact)
        stored.number, stored.mark, stored.fresh = number, mark, False
        stored.changed_at = None

    async def _say_what_stays(self, id: InstanceId) -> None:
        packings = [await bag.pack(id, fresh=True, exact=True) for bag in self.bags.values()]
        if any(packing.write for packing in packings):
            log.warning(
                "the messages that %s keeps stay on this machine: the fleet's tables have no"
                " place for them; run `wa-agent fleet database prepare`",
                id,
                extra=about(id),
            )

    async def _read_number(self, id: InstanceId, stored: Stored) -> bool:
        """False: these tables have no place for pieces."""
        found = await self.coordinator.baggage(id)
        if found is None:
            return False
        stored.number = max((it.number for it in found if it.epoch == stored.epoch), default=0)
        return True

    async def _write(
        self,
        id: InstanceId,
        stored: Stored,
        number: int,
        packings: Mapping[str, Packing],
        *,
        exact: bool,
    ) -> None:
        names, batch, size = {TRIP}, dict[str, bytes](), 0
        for wing, packing in packings.items():
            names |= {f"{wing}/{name}" for name in (*packing.kept, *packing.write)}
            for own, read in packing.write.items():
                name = f"{wing}/{own}"
                try:
                    content = await asyncio.to_thread(read)
                except OSError as error:
                    raise VaultError(
                        f"cannot store {name} of {id} for the fleet: {error.strerror}",
                        code="unreadable",
                    ) from error
                batch[name] = await self._sealed(id, stored.epoch, name, content)
                size += len(content)
                if size > LARGEST_WRITE:
                    await self._send(id, stored, number, batch, None)
                    failpoint("baggage_part")
                    batch, size = {}, 0
        trip = json.dumps({"exact": exact, "at": time.time()}).encode()
        batch[TRIP] = await self._sealed(id, stored.epoch, TRIP, trip)
        await self._send(id, stored, number, batch, sorted(names))
        if exact:
            found = await self.coordinator.baggage(id) or ()
            if {piece.name for piece in found if piece.number == number} != names:
                raise TryLater(
                    f"the fleet's database does not have all that was stored of {id}",
                    code="baggage_differs",
                )

    async def _sealed(self, id: InstanceId, epoch: int, name: str, content: bytes) -> bytes:
        return await asyncio.to_thread(self.key.seal, piece_context(id, epoch, name), content)

    async def _send(
        self,
        id: InstanceId,
        stored: Stored,
        number: int,
        pieces: Mapping[str, bytes],
        kept: Sequence[str] | None,
    ) -> None:
        done = await self.coordinator.store_baggage(
            self.member(), id, stored.epoch, number, pieces=pieces, kept=kept
        )
        if done:
            return
        stored.number, stored.refused = None, done is False
        raise Refused(
            f"the fleet's database refused what goes with {id} in epoch {stored.epoch}: another"
            " machine owns the session, or a newer one is stored",
            code="baggage_refused",
        )
