"""Hands a session over to another machine, and by itself one whose files this machine cannot place.

That one never ran here in its epoch, so its stored copy is all there is of it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from agent.clock import boot_now
from agent.core.fleet.placement import Placing, place_first
from agent.core.model import InstanceId
from agent.errors import TryLater, WaError
from agent.fleet.coordinator import MachineRow, Owned
from agent.fleet.copies.arrive import epoch_here
from agent.fleet.fleet import Fleet
from agent.fleet.places import place_of
from agent.log import about
from agent.supervise.fleet.arrivals import NO_PROFILES_CODE, had_by
from agent.supervise.fleet.ownership import Ownership

log = logging.getLogger(__name__)

TRIES = 3
"""That fail, and a ttl, before another machine gets it."""
OWN_FAULTS = frozenset({"disk_full", "read_only", "permissions", NO_PROFILES_CODE})
"""Error codes of what another machine's disk may take."""


@dataclass(slots=True)
class Failed:
    epoch: int
    """Of the session."""
    since: float
    tries: int = 0


@dataclass(slots=True, eq=False, repr=False)
class HandingOn:
    fleet: Fleet
    ownership: Ownership
    root: Path
    say_room: Callable[[], Awaitable[None]]
    """The database hears first that this machine takes no session now."""
    _failed: dict[InstanceId, Failed] = field(init=False, default_factory=dict)

    async def failed(self, id: InstanceId, error: WaError) -> str:
        """A try to place its files failed; why it stays with this machine, "" = it does not."""
        owned = self.ownership.owned.get(id)
        if owned is None or error.code not in OWN_FAULTS or not await self._never_ran(id, owned):
            return str(error)
        known = self._failed.get(id)
        if known is None or known.epoch != owned.epoch:
            known = self._failed[id] = Failed(owned.epoch, boot_now())
        known.tries += 1
        if known.tries < TRIES or boot_now() < known.since + self.fleet.policy.ttl:
            return str(error)
        await self.say_room()
        row, why = await self._next_owner(owned)
        if row is None:
            return f"{error}; no other machine can run it: {why}"
        why = f"{self.fleet.machine} could not place its files"
        if not await hand_over(self.fleet, id, row, why):
            return str(error)
        del self._failed[id]
        self.ownership.released(id)
        log.warning(
            "%s; after %s tries it goes to %s", error, known.tries, row.name, extra=about(id)
        )
        return ""

    async def _never_ran(self, id: InstanceId, owned: Owned) -> bool:
        """In this epoch, on this machine: else what is here may be newer than its copy."""
        tenancy = self.ownership.epochs.known.get(id)
        if tenancy is not None and tenancy.epoch == owned.epoch:
            return False
        here = await asyncio.to_thread(epoch_here, self.root, id)
        session = await self.fleet.requests.session(id)
        return here != owned.epoch and session is not None and session.copy_at is not None

    async def _next_owner(self, owned: Owned) -> tuple[MachineRow | None, str]:
        """The machine that gave it, where it lives and can; else any other."""
        rows = [row for row in await self.fleet.requests.machines() if row.alive]
        others = {row.name: row for row in rows if row.name != self.fleet.machine}
        views = await self.fleet.requests.views([owned.id])
        giver = next((it.name for it in others.values() for v in views if it.id == had_by(v)), "")
        placing = Placing(owned.id, owned.engine, owned.labels, owned.only_on)
        placement = place_first(placing, giver, map(place_of, others.values()))
        name = placement.on.get(owned.id, "")
        return others.get(name), placement.waiting.get(owned.id, "")


async def hand_over(fleet: Fleet, id: InstanceId, row: MachineRow, why: str) -> bool:
    """Whether it happened; after a lost answer the next renewal knows. No second owner."""
    keeper, coordinator = fleet.keeper, fleet.coordinator
    for _ in range(3):
        try:
            if await coordinator.hand_over(keeper.member, id, row.id, why):
                return True
        except TryLater as error:
            sentence = "%s; the next renewal shows whether it moved"
            log.warning(sentence, error, extra=about(id))
        await keeper.next_renewal()
        session = await _owner(fleet, id)
        if session != keeper.member.id:
            return session == row.id
    return False


async def _owner(fleet: Fleet, id: InstanceId) -> int | None:
    """Its number, however long the database takes."""
    while True:
        try:
            row = await fleet.coordinator.session(id)
            return None if row is None else row.machine
        except TryLater:
            await fleet.keeper.next_renewal()
