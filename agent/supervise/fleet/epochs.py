"""In which epoch this machine got each of its sessions: the folder here is of that epoch.

Facts of the store, written before a session may run. A session that was owned elsewhere since
then has another epoch in the database, and its folder here is stale. So has one whose stored copy
has a later number than this machine ever sent: its disk was made again from an older image.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from agent.core.model import InstanceId
from agent.fleet.coordinator import Owned
from agent.store.database import Store

EPOCH, NUMBERS = "fleet/", "fleet-numbers/"
"""The facts' names, before the id. The version before reads the first one only."""


@dataclass(frozen=True, slots=True)
class Tenancy:
    epoch: int
    """Of the session."""
    machine_epoch: int
    """Of this machine: another one means that its sessions were taken over since."""
    generation: int = 0
    """Of the fleet, when this machine heard last that it owns the session."""
    copy: int | None = None
    """The number of the last copy that was fetched or begun to be sent; None: not counted yet."""

    def is_of(self, owned: Owned) -> bool:
        """The folder here is the newest."""
        return self.epoch == owned.epoch and (self.copy is None or self.copy >= owned.copy)

    def heard(self, owned: Owned) -> "Tenancy":
        copy = owned.copy if self.copy is None else self.copy
        return replace(self, generation=max(self.generation, owned.generation), copy=copy)


@dataclass(slots=True, eq=False)
class Epochs:
    store: Store
    known: dict[InstanceId, Tenancy] = field(default_factory=dict)

    async def load(self) -> None:
        facts = await self.store.get_facts(EPOCH)
        numbers = await self.store.get_facts(NUMBERS)
        self.known = {
            InstanceId(id): _tenancy(text, numbers.get(NUMBERS + id, "[-1, 0, null]"))
            for name, text in facts.items()
            if (id := name.removeprefix(EPOCH))
        }

    async def put(self, tenancies: Mapping[InstanceId, Tenancy]) -> None:
        facts = {}
        for id, it in tenancies.items():
            facts[EPOCH + id] = json.dumps([it.epoch, it.machine_epoch])
            facts[NUMBERS + id] = json.dumps([it.epoch, it.generation, it.copy])
        await self.store.put_facts(facts)
        self.known |= tenancies

    async def hear(self, owned: Mapping[InstanceId, Owned]) -> None:
        """Of the sessions whose folder here is the newest: how new the word is."""
        newer = {}
        for id, it in owned.items():
            known = self.known.get(id)
            if known and known.is_of(it) and known != (heard := known.heard(it)):
                newer[id] = heard
        if newer:
            await self.put(newer)

    async def next_copy(self, id: InstanceId, owned: Owned) -> int:
        """The number of the next copy of a session: on the disk before the copy is sent."""
        known = (self.known.get(id) or Tenancy(owned.epoch, -1)).heard(owned)
        number = (known.copy or 0) + 1
        await self.put({id: replace(known, copy=number)})
        return number

    async def forget(self, ids: Collection[InstanceId]) -> None:
        await self.store.forget_facts([kind + id for id in ids for kind in (EPOCH, NUMBERS)])
        for id in ids:
            self.known.pop(id, None)


def _tenancy(text: str, numbers: str) -> Tenancy:
    epoch, machine_epoch = json.loads(text)
    of_epoch, generation, copy = json.loads(numbers)
    # The version before counts nothing: what it wrote since has another epoch.
    told = (generation, copy) if of_epoch == epoch else (0, None)
    return Tenancy(epoch, machine_epoch, *told)
