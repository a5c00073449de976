"""In which epoch this machine got each of its sessions: the folder here is of that epoch.

Facts of the store, written before a session may run. A session that was owned elsewhere since
then has another epoch in the database, and its folder here is stale.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import astuple, dataclass, field, replace

from agent.core.model import InstanceId
from agent.fleet.coordinator import Owned
from agent.store.database import Store

EPOCH = "fleet/"
"""The fact's name, before the id."""


@dataclass(frozen=True, slots=True)
class Tenancy:
    epoch: int
    """Of the session."""
    machine_epoch: int
    """Of this machine: another one means that its sessions were taken over since."""
    generation: int = 0
    """Of the fleet, when this machine heard last that it owns the session."""


@dataclass(slots=True, eq=False)
class Epochs:
    store: Store
    known: dict[InstanceId, Tenancy] = field(default_factory=dict)

    async def load(self) -> None:
        facts = await self.store.get_facts(EPOCH)
        self.known = {
            InstanceId(name.removeprefix(EPOCH)): Tenancy(*json.loads(text))
            for name, text in facts.items()
        }

    async def put(self, tenancies: Mapping[InstanceId, Tenancy]) -> None:
        await self.store.put_facts(
            {EPOCH + id: json.dumps(astuple(it)) for id, it in tenancies.items()}
        )
        self.known |= tenancies

    async def hear(self, owned: Mapping[InstanceId, Owned]) -> None:
        """Of the sessions whose folder here is the newest: how new the word is."""
        newer = {}
        for id, it in owned.items():
            known = self.known.get(id)
            if known and known.epoch == it.epoch and known.generation < it.generation:
                newer[id] = replace(known, generation=it.generation)
        if newer:
            await self.put(newer)

    async def forget(self, ids: Collection[InstanceId]) -> None:
        await self.store.forget_facts([EPOCH + id for id in ids])
        for id in ids:
            self.known.pop(id, None)
