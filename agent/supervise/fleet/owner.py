"""What requests ask of the fleet about a session of this machine: creation, orders, deletion; and
the leave of the whole machine."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent.clock import boot_now
from agent.core.model import Instance, InstanceId, SessionRecord
from agent.errors import Refused, TryLater
from agent.failpoint import failpoint
from agent.fleet.coordinator import Owned
from agent.fleet.fleet import Fleet
from agent.host.base import Host
from agent.store.database import Store
from agent.supervise.facts import Facts
from agent.supervise.fleet.epochs import Tenancy
from agent.supervise.fleet.orders import Orders, new_session
from agent.supervise.fleet.ownership import Ownership
from agent.supervise.fleet.telling import Telling
from agent.supervise.registry import Registry

log = logging.getLogger(__name__)

LEAVING = "fleet_leaving"
"""Fact: this machine began to leave. Cut short, it registers its sessions as new ones."""
JOINED_WITHIN, KNOWN_WITHIN = 5.0, 60.0
"""Seconds for a request right after the agent's start, and for a deletion of before it."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a new session asks of the fleet."""

    labels: Mapping[str, str]
    failover: str
    """"" = as its engine has it."""


@dataclass(slots=True, eq=False, repr=False)
class FleetOwner:
    fleet: Fleet
    ownership: Ownership
    orders: Orders
    registry: Registry
    store: Store
    host: Host
    telling: Telling
    wishes: dict[InstanceId, Wishes] = field(init=False, default_factory=dict)
    """Of sessions that are being made."""
    in_hand: set[InstanceId] = field(init=False, default_factory=set)

    def wait_reason(self, facts: Facts) -> str:
        return self.ownership.wait_reason(facts)

    def wait_sentence(self, facts: Facts) -> str:
        """The one cause that holds now."""
        keeper, id = self.fleet.keeper, facts.id
        if not self.ownership.lease.holds(boot_now()):
            cause = keeper.database_error or "it renews the lease now"
            return f"the lease of this machine has ended: {cause}"
        if owner := self.ownership.owned.get(id):
            if self.ownership.is_of(id, owner):
                return ""
            return "its newest files are not here yet; this machine fetches them"
        if keeper.halted:
            return f"no session changes its machine: {keeper.halted}; wa-agent fleet accept"
        if not keeper.settled or not self.ownership.known.is_set():
            ttl = self.fleet.policy.ttl
            return f"sessions start when the fleet's database is in use for {ttl:g} s"
        name = self.fleet.directory.owner_name(id)
        return f"machine {name} owns it" if name else "no machine of the fleet has it"

    def attached(self, id: InstanceId) -> None:
        self.ownership.leases.attached(id)

    async def write_through(self, facts: Facts) -> None:
        await self.orders.write(facts)

    async def joined(self) -> None:
        """Right after the agent's start a request waits a moment for the database."""
        await at_most(JOINED_WITHIN, self.fleet.keeper.joined)

    async def claim(self, instance: Instance) -> None:
        """Take an id in the fleet for a session that is made here. Refused: another has it."""
        await self.joined()
        member = self.fleet.keeper.member
        session = new_session(instance, SessionRecord(), self.host.boot_id(), self.fleet.machine)
        if wishes := self.wishes.get(instance.id):
            failover = wishes.failover or session.failover
            session = replace(session, labels=wishes.labels, failover=failover)
        if not await self.fleet.coordinator.create(member, session, member.id):
            await self._refuse_what_began(instance.id)
        await self.ownership.epochs.put({instance.id: Tenancy(0, member.epoch)})
        owned = Owned(
            session.id,
            0,
            session.engine,
            session.wanted,
            session.failover,
            session.labels,
            session.only_on,
            session.settings,
        )
        self.ownership.claimed(owned)
        failpoint("fleet_claimed")

    async def _refuse_what_began(self, id: InstanceId) -> None:
        """Only a creation that was cut short is made once more: what has run may have a pairing."""
        row = await self.fleet.coordinator.session(id)
        mine = row is not None and row.machine == self.fleet.keeper.member.id
        begun = row is not None and (row.epoch > 0 or row.copy_at is not None)
        ran = id in self.registry.facts or bool(await self.fleet.coordinator.views([id]))
        if not mine or begun or ran:
            known = "" if row is None else self.fleet.directory.name_of(row.machine)
            raise Refused(
                f"cannot create {id}: machine {known or '(not known yet)'} of the"
                " fleet has it already",
                field="id",
                code="exists",
            )

    def refuse_other_engine(self, instance: Instance) -> None:
        """Machines are chosen and copies are judged by the engine in the database's row."""
        owned = self.ownership.owned.get(instance.id)
        if owned is not None and owned.engine != instance.engine:
            raise Refused(
                f"cannot replace {instance.id}: the fleet has it with engine {owned.engine}, not"
                f" {instance.engine}; delete it first",
                field="engine",
                code="wrong_engine",
            )

    def refuse_unreachable(self) -> None:
        if (error := self.fleet.keeper.database_error) and not self.ownership.left.is_set():
            raise TryLater(error, code="fleet_database")

    async def delete(self, id: InstanceId) -> None:
        """Take it out of the fleet; one that is not in it is no fault."""
        if self.ownership.left.is_set():
            return
        await at_most(KNOWN_WITHIN, self.ownership.known)
        if (owned := self.ownership.owned.get(id)) is not None:
            await self.fleet.coordinator.delete(self.fleet.keeper.member, id, owned.epoch)
            await self.telling.note_deleted(id)
        self.ownership.released(id)
        await self.ownership.epochs.forget([id])

    async def leave(self) -> None:
        """The machine and its rows go out of the database; the sessions stay here and go on."""
        await at_most(JOINED_WITHIN, self.ownership.known)
        await self.store.put_fact(LEAVING, "")
        failpoint("fleet_leaving")
        here = [id for id, it in self.registry.facts.items() if it.instance.leased]
        whole = [
            id
            for id, it in self.ownership.owned.items()
            if id in self.registry.facts and self.ownership.is_of(id, it)
        ]
        if not await self.fleet.requests.leave(self.fleet.keeper.member, whole):
            await self.store.forget_facts([LEAVING])
            raise Refused(
                "cannot leave the fleet: this machine owns sessions whose files have not"
                " arrived yet; wa-agent fleet status lists them",
                code="not_settled",
            )
        self.ownership.left.set()
        failpoint("fleet_left")
        await self.registry.set_leased(False)
        await self.ownership.leases.remove(here)
        await self.ownership.epochs.forget(list(self.ownership.epochs.known))
        await self.store.forget_facts([LEAVING])
        self.registry.tenure.owner = None
        for id in here:
            self.ownership.wake(id)
        log.warning("this machine left its fleet: take [fleet] out of agent.toml before a restart")


async def at_most(seconds: float, event: asyncio.Event) -> None:
    """What needs it says itself that it has not come."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
