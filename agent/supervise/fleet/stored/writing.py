"""Writes a session's copy, and what changed since, into the fleet's database: sealed,
numbered, under the session's epoch."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.clock import boot_now
from agent.core.model import InstanceId
from agent.errors import Refused, TryLater
from agent.fleet.coordinator import Member, Owned, Stored
from agent.fleet.key import FleetKey, change_context, copy_context
from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.supervise.facts import Facts
from agent.supervise.fleet.epochs import Epochs
from agent.supervise.fleet.stored.replica import Replica


@dataclass(slots=True, eq=False, repr=False)
class CopyWriting:
    coordinator: PostgresCoordinator
    """With a connection of its own: a renewal must not wait for a large copy."""
    key: FleetKey
    member: Callable[[], Member]
    owned: Callable[[], Mapping[InstanceId, Owned]]
    """Those whose newest files are here."""
    epochs: Epochs

    async def copy(self, facts: Facts, replica: Replica, content: bytes, *, exact: bool) -> int:
        """All of it; its number. `exact`: it was read back when this returns."""
        id, epoch = facts.id, replica.epoch
        sealed = await asyncio.to_thread(self.key.seal, copy_context(id, epoch), content)
        number = await self._number(id)
        if number is None or not await self.coordinator.store_copy(
            self.member(), id, epoch, sealed, number
        ):
            raise _refused(facts, replica)
        replica.stored_at, replica.size = boot_now(), len(sealed)
        replica.changed_at = None
        if exact and await self.coordinator.stored(id) != Stored(epoch, sealed):
            raise TryLater(
                f"the fleet's database does not give back the copy of {id} that it took",
                code="copy_differs",
            )
        return number

    async def change(
        self, facts: Facts, replica: Replica, content: bytes, after: int
    ) -> int | None:
        """What changed since the copy or the change `after`; its number. None: a whole copy is
        wanted."""
        id, epoch, number = facts.id, replica.epoch, await self._number(facts.id)
        if number is None:
            raise _refused(facts, replica)
        context = change_context(id, epoch, number, after)
        sealed = await asyncio.to_thread(self.key.seal, context, content)
        stored = await self.coordinator.store_change(
            self.member(), id, epoch, sealed, number=number, after=after
        )
        if stored is None:
            return None
        if not stored:
            raise _refused(facts, replica)
        replica.stored_at, replica.changed_at = boot_now(), None
        replica.size += len(sealed)
        return number

    async def _number(self, id: InstanceId) -> int | None:
        """None: this machine does not own it any more."""
        owned = self.owned().get(id)
        return None if owned is None else await self.epochs.next_copy(id, owned)


def _refused(facts: Facts, replica: Replica) -> Refused:
    replica.refused = True
    return Refused(
        f"the fleet's database refused a copy of {facts.id} in epoch {replica.epoch}: another"
        " machine owns the session or took this one's over, or a newer copy of it is stored",
        code="copy_refused",
    )
