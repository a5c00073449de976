"""Takes in a session that this machine owns and has not got: its files, its row, its first pass."""

import logging
import time
from dataclasses import dataclass, replace

from agent.core.model import Instance, InstanceId, JournalEntry, Override, SessionRecord
from agent.failpoint import failpoint
from agent.fleet.coordinator import Owned
from agent.fleet.fleet import Fleet
from agent.host.base import Host
from agent.log import about
from agent.store.database import Store
from agent.supervise.fleet.arrivals import Arrivals, Arrived
from agent.supervise.fleet.epochs import Tenancy
from agent.supervise.fleet.orders import DISABLED, STOPPED
from agent.supervise.fleet.ownership import Ownership
from agent.supervise.registry import Registry

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TakingIn:
    fleet: Fleet
    ownership: Ownership
    registry: Registry
    store: Store
    host: Host
    arrivals: Arrivals

    async def take_in(self, owned: Owned) -> None:
        id = InstanceId(owned.id)
        arrived = await self.arrivals.fetch(owned)
        failpoint("fleet_arrived")
        if self.ownership.owned.get(id) != owned or id in self.registry.facts:
            return  # it changed meanwhile: the next comparison sees what is in place
        machine_epoch = self.fleet.keeper.member.epoch
        tenancy = Tenancy(owned.epoch, machine_epoch, owned.generation, owned.copy)
        await self.ownership.epochs.put({id: tenancy})
        instance, record = _as_wanted(owned, arrived, self.host.boot_id())
        row = await self.fleet.coordinator.session(id)
        why = row.why if row is not None else ""
        said = JournalEntry(
            "arrived",
            f"it runs on this machine from now on: {why or 'the fleet assigned it'}",
            instance=id,
            wall=time.time(),
            detail={"epoch": owned.epoch},
        )
        await self.store.add(instance, record, said)
        facts = self.registry.add(instance, record)
        self.ownership.give_lease()
        facts.saved.identity = arrived.identity
        facts.saved.identity_behind = True
        log.info("%s", said.sentence, extra=about(id))
        self.ownership.wake(id)


def _as_wanted(owned: Owned, arrived: Arrived, boot: str) -> tuple[Instance, SessionRecord]:
    """Its files say who it is; the database what operators ordered last."""
    instance = replace(
        arrived.identity.instance,
        enabled=owned.wanted not in (DISABLED,),
        settings=dict(owned.settings),
        leased=True,
    )
    stopped = owned.wanted == STOPPED
    record = replace(
        arrived.record,
        override=Override.STOPPED if stopped else Override.NONE,
        override_boot=boot if stopped else "",
    )
    return instance, record
