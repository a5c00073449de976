"""What may be asked of this machine's fleet; the API and the command line use nothing else."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from agent.clock import boot_now
from agent.core.fleet.figures import FleetFigures, machine_state
from agent.core.fleet.placement import Placing, place
from agent.core.fleet.takeover import Failover, Word
from agent.core.model import Instance, InstanceId
from agent.core.view import InstanceView
from agent.errors import InvalidRequest, NotFound, Refused, TryLater, WaError
from agent.fleet.certificate import CertificateEnd
from agent.fleet.coordinator import MachineRow
from agent.fleet.directory import Directory
from agent.fleet.fleet import Fleet
from agent.fleet.peers import Peers, Sent
from agent.fleet.places import place_of
from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.fleet.words import word_of
from agent.supervise.fleet.moves import LOOK_EVERY, Moves
from agent.supervise.fleet.owner import FleetOwner, Wishes
from agent.supervise.fleet.stored.baggage import Baggage
from agent.supervise.fleet.stored.replicas import Replicas
from agent.supervise.fleet.waiting import Waiting, WaitingList


@dataclass(frozen=True, slots=True)
class FleetStatus:
    machine: str
    address: str
    database_reachable: bool
    database_error: str
    database_since_wall: float
    lease_holds: bool
    lease_seconds: float
    lease_by: str
    """renewal or promises; "" = it does not hold."""
    halted: str
    settled: bool
    machines: Sequence[MachineRow]
    machines_age: float
    """Seconds since the database said so."""
    waiting: Waiting
    """Sessions that should run and cannot."""
    moving: Sequence[tuple[str, str]]
    """Planned moves under way from this machine: id, the machine's name."""
    apart: Mapping[str, str]
    """By name, why another machine would not promise to wait for this one."""
    memory_error: str
    """Why this machine cannot keep what it must remember, and renews no lease; "" = it can."""
    elsewhere: Sequence[str]
    """Machines that renew their leases in another database."""


@dataclass(slots=True, eq=False, repr=False)
class FleetFace:
    fleet: Fleet
    owner: FleetOwner
    waiting: WaitingList
    moves: Moves
    replicas: Replicas
    baggage: Baggage
    address: str
    certificate: CertificateEnd
    make: Callable[[Instance], Awaitable[InstanceView]]
    """Creates an instance on this machine."""

    @property
    def machine(self) -> str:
        """The name of this one."""
        return self.fleet.machine

    @property
    def bearer(self) -> str:
        return self.fleet.key.bearer

    @property
    def directory(self) -> Directory:
        return self.fleet.directory

    @property
    def peers(self) -> Peers:
        return self.fleet.peers

    @property
    def coordinator(self) -> PostgresCoordinator:
        """For requests: a long answer must not hold up a renewal."""
        return self.fleet.requests

    async def status(self) -> FleetStatus:
        keeper = self.fleet.keeper
        left = max(keeper.lease.until - boot_now(), 0.0)
        machines, age = await self._machines()
        return FleetStatus(
            self.fleet.machine,
            self.address,
            not self.fleet.database_error,
            self.fleet.database_error,
            keeper.database_since_wall,
            left > 0,
            left,
            keeper.lease_by if left > 0 else "",
            keeper.halted,
            keeper.settled,
            machines,
            age,
            await self.waiting.everywhere(),
            self.moves.listed,
            self.fleet.rehearsal.apart,
            keeper.takeovers.memory.trouble,
            keeper.takeovers.elsewhere,
        )

    async def _machines(self) -> tuple[Sequence[MachineRow], float]:
        """While the database is away, those that were read last, and for how long they are old."""
        if not self.fleet.keeper.database_error:
            with suppress(WaError):
                return await self.coordinator.machines(), 0.0
        directory = self.directory
        seen = [
            replace(row, seconds_since_renewal=directory.renewed_seconds_ago(row))
            for row in directory.machines.values()
        ]
        return seen, directory.age

    def figures(self) -> FleetFigures:
        keeper = self.fleet.keeper
        states: dict[str, int] = {}
        for row in self.directory.machines.values():
            state = machine_state(alive=row.alive, drained=row.drained)
            states[state] = states.get(state, 0) + 1
        return FleetFigures(
            machine=self.fleet.machine,
            database_reachable=not self.fleet.database_error,
            unwritable=bool(keeper.takeovers.memory.trouble),
            lease_seconds_left=max(keeper.lease.until - boot_now(), 0.0),
            halted=bool(keeper.halted),
            machines=states,
            owned=len(self.owner.ownership.owned),
            waiting=len(self.waiting.known()),
            moving=len(self.moves.listed),
            commands_waiting=keeper.commands_wait,
            apart=len(self.fleet.rehearsal.apart),
            elsewhere=len(keeper.takeovers.elsewhere),
            copy_age_max=max(self.replicas.behind_seconds(), self.baggage.behind_seconds()),
            copy_bytes=self.replicas.stored_bytes(),
            certificate_ends_wall=self.certificate.ends_wall(),
            counts=self.fleet.counts,
        )

    def copy_behind(self, id: InstanceId) -> tuple[float, str]:
        """For how long the stored copy of this machine's session lacks a change, and why."""
        return max(self.replicas.behind(id), self.baggage.behind(id))

    async def ask_owner(
        self, id: InstanceId, path: str, body: bytes
    ) -> tuple[int, Mapping[str, Any]]:
        """Ask the machine that has the session, for this machine itself."""
        owner = self.directory.owner(id)
        if owner is None or owner.name == self.machine:
            await self.directory.look_again()
            owner = self.directory.owner(id)
        if owner is None or owner.name == self.machine:
            raise TryLater(f"no other machine has {id}", code="not_owner")
        headers = {"Content-Type": "application/json"}
        return await self.peers.ask(owner, Sent("POST", path, headers, body))

    async def promise(self, machine: int, epoch: int, accepted: str) -> bool:
        """Another machine asks that this one does not take it over for a ttl; `accepted`: the
        accepted loss of records that it has heard of."""
        return self.fleet.keeper.promise(machine, epoch, accepted)

    def would_promise(self, machine: int, epoch: int, accepted: str) -> bool:
        """Whether it would promise that now; nothing is promised."""
        return self.fleet.keeper.would_promise(machine, epoch, accepted)

    @property
    def word(self) -> Word:
        """What this machine says of its lease to one that may take it over."""
        return word_of(self.fleet.keeper)

    async def move(self, id: InstanceId, to: str | None, why: str) -> str:
        """Begin a planned move of a session of this machine; the name of its next owner."""
        return await self.moves.ask(id, to, why)

    async def drain(self, name: str) -> None:
        await self._set_drained(name, drained=True)

    async def undrain(self, name: str) -> None:
        await self._set_drained(name, drained=False)

    async def _set_drained(self, name: str, *, drained: bool) -> None:
        if not await self.coordinator.set_drained(name, drained):
            raise _no_machine(name)
        self.directory.wake()

    async def forget(self, name: str) -> None:
        row = await self._row(name)
        if row.name == self.fleet.machine:
            raise Refused(
                f"cannot forget {name}: it is this machine; wa-agent fleet leave",
                code="own_machine",
            )
        member, known = self.fleet.keeper.member, self.fleet.keeper.takeovers.lapsed()
        dead = row.id in known
        if not (dead and await self.fleet.coordinator.forget(member, row.id, known[row.id])):
            raise Refused(
                f"cannot forget {name}: this machine did not see that it stopped renewing its lease"
                f" for {self.fleet.policy.ttl:g} s; try again after that time, or, to move its"
                f" sessions: wa-agent fleet drain {name}",
                code="machine_alive",
            )

    async def accept_copy(self, id: InstanceId) -> None:
        """A session of a lost machine may start elsewhere from a copy that lacks changes."""
        keeper = self.fleet.keeper
        row, lapsed = await self.coordinator.session(id), keeper.takeovers.lapsed()
        if row is None:
            raise NotFound(f"cannot find the instance {id}: no machine of the fleet has it")
        lost = row.machine in lapsed
        if not lost or not await self.coordinator.accept_copy(
            keeper.member, id, row.machine, lapsed[row.machine]
        ):
            raise Refused(
                f"cannot accept the copy of {id}: "
                + ("its stored copy is not said to lack changes" if lost else "its machine lives")
                + f"; wa-agent fleet why {id}",
                code="copy_follows" if lost else "machine_alive",
            )
        keeper.wake()

    async def _row(self, name: str) -> MachineRow:
        for row in await self.coordinator.machines():
            if row.name == name:
                return row
        raise _no_machine(name)

    async def place(self, instance: Instance, on: str, labels: Mapping[str, str]) -> MachineRow:
        """The machine for a new session; Refused where none can run it."""
        await self.owner.joined()
        rows = await self.coordinator.machines()
        if on and on not in {row.name for row in rows}:
            raise _no_machine(on)
        # What a backend's session needs is the [[backend]] of this machine.
        name = on or (self.machine if instance.backend else "")
        alive = [row for row in rows if row.alive or row.name == self.machine]
        placing = Placing(instance.id, instance.engine, labels, name)
        placement = place([placing], [place_of(row) for row in alive])
        if why := placement.waiting.get(instance.id):
            raise Refused(f"cannot create {instance.id}: {why}", field="on", code="no_machine")
        return next(row for row in alive if row.name == placement.on[instance.id])

    async def create(
        self, instance: Instance, on: str, labels: Mapping[str, str], failover: str
    ) -> InstanceView:
        """Make a session on this machine, its row in the fleet's database first."""
        if failover not in ("", *Failover):
            raise InvalidRequest(
                f"cannot create {instance.id}: failover must be {' or '.join(Failover)}",
                field="failover",
            )
        self.owner.wishes[instance.id] = Wishes(dict(labels), failover)
        try:
            return await self.make(instance)
        finally:
            self.owner.wishes.pop(instance.id, None)

    async def leave(self) -> None:
        """Take this machine and its sessions out of the fleet; they go on here."""
        if self.moves.listed:
            raise Refused(
                "cannot leave the fleet: a move is under way; wa-agent fleet status", code="moving"
            )
        await self.owner.leave()

    async def accept(self) -> None:
        """Once every machine that lives told what it runs: it does so at its next renewal."""
        give_up = boot_now() + self.fleet.policy.ttl
        while True:
            try:
                await self.fleet.coordinator.accept()
                break
            except TryLater as error:
                if error.code != "not_told" or boot_now() > give_up:
                    raise
            await asyncio.sleep(LOOK_EVERY)
        self.fleet.keeper.wake()


def _no_machine(name: str) -> NotFound:
    return NotFound(
        f"cannot find machine {name}: the fleet has none of that name", code="no_machine"
    )
