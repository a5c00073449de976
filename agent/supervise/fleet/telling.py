"""Tells the fleet's database, after it lost records, what this machine runs and what it deleted.

Each with the generation in which the machine heard of it last: what is newer than the records that
are left stays where it runs, and what was deleted since stays deleted.
"""

import asyncio
import logging
from dataclasses import dataclass, field, replace

from agent.core.model import InstanceId
from agent.errors import WaError
from agent.fleet.coordinator import Held, Renewal
from agent.fleet.fleet import Fleet
from agent.store.database import Store
from agent.supervise.facts import Facts
from agent.supervise.fleet.orders import new_session
from agent.supervise.fleet.ownership import Ownership
from agent.supervise.registry import Registry
from agent.supervise.story import DELETING

log = logging.getLogger(__name__)

DELETED = "fleet-deleted/"
"""The fact's name, before the id: the generation in which this machine deleted the session."""
KEPT = 1000
"""Deletions that a machine remembers."""


@dataclass(slots=True, eq=False, repr=False)
class Telling:
    fleet: Fleet
    ownership: Ownership
    registry: Registry
    store: Store
    boot: str
    _asked: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    def hear(self, renewal: Renewal) -> None:
        if renewal.halted and not renewal.told:
            self._asked.set()

    async def run(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                await self._tell_all()
            except WaError as error:  # the next renewal asks again
                log.error("%s; what runs here is told to the fleet's database later", error)

    async def _tell_all(self) -> None:
        deleting = await self.store.get_facts(DELETING)
        known = {id for id in self.registry.facts if DELETING + id not in deleting}
        held = [it for id in known if (it := self._held(self.registry.facts[id])) is not None]
        deletions = await self.store.get_facts(DELETED)
        deleted = {name.removeprefix(DELETED): int(text) for name, text in deletions.items()}
        member = self.fleet.keeper.member
        own = await self.fleet.requests.tell(member, held, deleted)
        log.warning(
            "the fleet's database lost records: it was told of %s sessions of this machine, and"
            " keeps %s of them here; and of %s that this machine deleted",
            len(held),
            len(own),
            len(deleted),
        )

    async def tell(self, facts: Facts) -> bool:
        """Of one session; whether it stays with this machine."""
        held = self._held(facts)
        if held is None:
            return False
        own = await self.fleet.requests.tell(self.fleet.keeper.member, [held], {})
        self.fleet.keeper.wake()
        return facts.id in own

    async def note_deleted(self, id: InstanceId) -> None:
        """It stays deleted if the database loses its records of that."""
        generation = await self.fleet.requests.deleted_in(id)
        if generation is None:
            return
        await self.store.put_fact(DELETED + id, str(generation))
        known = await self.store.get_facts(DELETED)
        if len(known) > KEPT:
            oldest = sorted(known, key=lambda name: int(known[name]))
            await self.store.forget_facts(oldest[: len(known) - KEPT])

    def _held(self, facts: Facts) -> Held | None:
        """None: it is not of the fleet, or another machine's newer files count."""
        tenancy = self.ownership.epochs.known.get(facts.id)
        owned = self.ownership.owned.get(facts.id)
        gone = owned is None and self.ownership.known.is_set()
        if tenancy is None or gone or not facts.instance.leased:
            return None
        session = new_session(facts.instance, facts.record, self.boot, self.fleet.machine)
        if owned is not None and owned.epoch == tenancy.epoch:
            session = replace(session, labels=owned.labels, failover=owned.failover)
        return Held(session, tenancy.epoch, tenancy.generation, as_ordered=owned is not None)
