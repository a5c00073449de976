"""Keeps this machine's lease: renews it, asks its rivals while the database is away, takes over.

One loop of one machine. What it decides with is `agent/core/fleet/`; `scripts/simulate fleet`
plays the same steps against every fault that we know.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from agent.clock import boot_id, boot_now
from agent.core.fleet.figures import FleetCounts
from agent.core.fleet.lease import Lease, LeasePolicy, extended, renewed
from agent.core.fleet.placement import Place, Placing, place
from agent.core.fleet.promises import Takeover, after_boot, begin_takeover, give, settle
from agent.core.fleet.sightings import Sightings, look
from agent.core.fleet.takeover import Peer, Refusal, Standing, refuse_takeover
from agent.errors import TryLater, WaError
from agent.fleet.coordinator import (
    Coordinator,
    Machine,
    MachineRow,
    Member,
    NewSession,
    Owned,
    Renewal,
)
from agent.fleet.memory import FleetMemory, load, save

log = logging.getLogger(__name__)

AskRival = Callable[[MachineRow, int, int], Awaitable[bool]]
"""Ask a machine, over its own address, for a promise to our id in our epoch."""
Changed = Callable[[Sequence[Owned], Lease], None]
"""What this machine may run, and until when; called at each renewal and each promise."""


class Keeper:
    """Made by `join`; `run` keeps the lease until it is cancelled."""

    def __init__(
        self,
        coordinator: Coordinator,
        machine: Machine,
        policy: LeasePolicy,
        *,
        path: Path,
        ask_rival: AskRival,
        changed: Changed,
        counts: FleetCounts | None = None,
    ) -> None:
        self._coordinator = coordinator
        self._machine = machine
        self._policy = policy
        self._path = path
        self._ask_rival = ask_rival
        self._changed = changed
        self.counts = counts or FleetCounts()
        self.halted = ""
        self.losses = 0
        """How often records were lost, were accepted, and what this machine owns was read again."""
        self._lost = False
        """Why no session changes its machine until an operator accepts it."""
        self._rejoined = False
        """The database did not know this machine: what it owned then is read again."""
        self.settled = False
        """Whether owners may change: no session is taken over or started otherwise."""
        self.database_error = ""
        """Why the last renewal failed; "" = it did not."""
        self.database_since_wall = time.time()
        """Since when the database answers, or does not."""
        self.lease_by = ""
        """What extended the lease last: renewal or promises."""
        self._memory: FleetMemory
        self._member: Member
        self._lease = Lease(0.0)
        self._sightings = Sightings()
        self.rows: Mapping[int, MachineRow] = {}
        """The machines, as they were read last."""
        self._rivals = frozenset[int]()
        self._owned: Sequence[Owned] = ()
        self._changes = -1
        self._loaded = False
        self.joined = asyncio.Event()
        """Set when the database knows this machine."""
        self.commands_wait = False
        self.on_commands: Callable[[], None] | None = None
        """Called while stored commands wait for this machine."""
        self._begun = self._answered = 0
        """The number of the last renewal that was begun, and of the last that was answered."""
        self._answer = asyncio.Condition()
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()

    async def load(self) -> None:
        """What this machine must remember, from its disk."""
        memory = await asyncio.to_thread(load, self._path, boot_id())
        promises = after_boot(memory.promises, boot_id(), boot_now(), self._policy)
        self._rivals = memory.rivals
        self._memory = replace(memory, promises=promises)
        await asyncio.to_thread(save, self._path, self._memory)
        self._loaded = True

    async def join(self) -> Member:
        if not self._loaded:
            await self.load()
        machine = replace(self._machine, installation=self._memory.installation)
        member = await self._coordinator.join(machine)
        # A database that lost records says so at the first renewal: it compares the numbers.
        renewals = max(member.renewals, self._memory.renewals)
        self._member = replace(member, renewals=renewals)
        self.joined.set()
        return self._member

    @property
    def member(self) -> Member:
        """TryLater before the database knows this machine."""
        if not self.joined.is_set():
            cause = self.database_error or "the agent is starting"
            raise TryLater(f"cannot take part in the fleet yet: {cause}", code="fleet_database")
        return self._member

    def wake(self) -> None:
        """Something changed: renew now, and read what this machine owns."""
        self._wake.set()

    async def run(self) -> None:
        while True:
            self._wake.clear()
            begun = boot_now()
            try:
                if not self.joined.is_set():
                    await self.join()
                await self.step()
            except WaError as error:
                self._note_database(str(error))
                if error.code == "not_a_member":  # an operator forgot a machine that lives
                    self.joined.clear()
                    self._rejoined = True
            spent = boot_now() - begun
            try:
                async with asyncio.timeout(max(self._policy.renew_every - spent, 0.05)):
                    await asyncio.sleep(0.05)
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _note_database(self, error: str) -> None:
        """Log a failure once, and once that it is over."""
        if bool(error) != bool(self.database_error):
            self.database_since_wall = time.time()
        if error and error != self.database_error:
            log.error("cannot renew the lease of this machine: %s", error)
        elif self.database_error and not error:
            log.info("the lease of this machine is renewed again")
        self.database_error = error

    async def step(self) -> None:
        """Renew, or ask the rivals; then take over what may be taken over."""
        begun = boot_now()
        await self._remember(lambda it: replace(it, named=(*it.named, self._rivals)))
        self._begun += 1
        number = self._begun
        try:
            renewal = await self._coordinator.renew(
                self._member, self._rivals, self._memory.generation
            )
        except TryLater as error:
            self._note_database(str(error))
            await self._ask_rivals()
            return
        self.counts.renewal_seconds.note(boot_now() - begun)
        self._note_database("")
        await self._hear(renewal, begun)
        async with self._answer:
            self._answered = number
            self._answer.notify_all()
        await self._take_over(renewal)

    async def next_renewal(self) -> None:
        """Until one is answered that begins from now on: an earlier hand-over is void or done."""
        wanted = self._begun + 1
        self.wake()
        async with self._answer:
            await self._answer.wait_for(lambda: self._answered >= wanted)

    async def promise(self, machine: int, epoch: int) -> bool:
        """Another machine asks that we do not take it over for a ttl."""
        given = False

        def promised(memory: FleetMemory) -> FleetMemory:
            nonlocal given
            promises = give(memory.promises, machine, epoch, boot_now(), self._policy)
            given = promises is not None
            return memory if promises is None else replace(memory, promises=promises)

        await self._remember(promised)
        self.counts.promises["given" if given else "refused"] += 1
        return given

    @property
    def lease(self) -> Lease:
        return self._lease

    async def _hear(self, renewal: Renewal, begun: float) -> None:
        answered, id = boot_now(), self._member.id
        held, other = self._lease.holds(answered), renewal.epoch != self._member.epoch
        if renewal.epoch > self._member.epoch or ((other or self._rejoined) and not renewal.halted):
            # Others took this machine's sessions over: what it runs is not its own any more.
            log.error(
                "other machines took over what this machine owned in epoch %s", self._member.epoch
            )
            self._rejoined = False
            self.counts.renewals["taken_over"] += 1
            self._owned, self._lease, self._changes = (), Lease(0.0), -1
            self._changed(self._owned, self._lease)
        number = renewal.renewals[id]
        self._member = replace(
            self._member,
            epoch=max(renewal.epoch, self._member.epoch),
            renewals=max(number, self._member.renewals),
        )
        await self._remember(
            lambda it: replace(
                it,
                epoch=self._member.epoch,
                generation=max(it.generation, renewal.generation),
                renewals=self._member.renewals,
                named=it.named[-1:] if renewal.accepted else it.named,
            )
        )
        if not renewal.accepted:
            return
        if renewal.halted and renewal.halted != self.halted:
            log.error("no session changes its machine: %s", renewal.halted)
        self.halted, self._rivals = renewal.halted, renewal.alive
        self.settled = renewal.settled and not renewal.halted
        if not self.settled and not held:
            # It may have been taken over in records that were lost: it starts nothing by itself.
            self._owned, self._changes = (), -1
        self._lease, self.lease_by = renewed(self._lease, begun, self._policy), "renewal"
        self.counts.renewals["renewed"] += 1
        self._sightings = look(self._sightings, renewal.renewals, answered, self._policy)
        if renewal.alive - self.rows.keys() or self._lapsed():
            self.rows = {row.id: row for row in await self._coordinator.machines()}
            await self._settle_takeovers(renewal)
        self._lost = self._lost or bool(renewal.halted)
        if not renewal.halted and (self._lost or renewal.changes != self._changes):
            await self._read_owned(renewal.changes)
        self._pass_on()
        self.commands_wait = renewal.commands
        if renewal.commands and self.on_commands is not None:
            self.on_commands()

    async def _read_owned(self, changes: int) -> None:
        """What another machine owns now ends here at once; what is new here begins only when the
        records are settled: its former owner has ended by then."""
        owned = await self._coordinator.owned(self._member)
        if not self.settled:
            ids = {it.id for it in owned}
            self._owned = [it for it in self._owned if it.id in ids]
            return
        self._owned, self._changes = owned, changes
        self.losses += self._lost
        self._lost = False

    def _pass_on(self) -> None:
        """Nothing is said before it is known what this machine owns."""
        if self._changes >= 0:
            self._changed(self._owned, self._lease)

    async def _settle_takeovers(self, renewal: Renewal) -> None:
        epochs = {row.id: row.epoch for row in self.rows.values()}
        await self._remember(
            lambda it: replace(it, promises=settle(it.promises, epochs, renewal.renewals))
        )

    async def _ask_rivals(self) -> None:
        begun, rivals = boot_now(), self._memory.rivals
        known = [self.rows[id] for id in rivals if id in self.rows]

        async def ask(row: MachineRow) -> int | None:
            with_limit = self._ask_rival(row, self._member.id, self._member.epoch)
            try:
                async with asyncio.timeout(self._policy.renew_every):
                    return row.id if await with_limit else None
            except (WaError, OSError, TimeoutError):
                return None

        promised = {id for id in await asyncio.gather(*map(ask, known)) if id is not None}
        all_promised = rivals <= promised
        if all_promised:
            self.lease_by = "promises"
        self.counts.renewals["promised" if all_promised else "failed"] += 1
        self._lease = extended(self._lease, begun, rivals, promised, self._policy)
        self._pass_on()

    def _lapsed(self) -> list[int]:
        """Machines whose number stands still for so long that they may be taken over."""
        now, ttl = boot_now(), self._policy.ttl
        return [
            id
            for id, seen in self._sightings.machines.items()
            if id != self._member.id and now >= seen.at + ttl
        ]

    async def _take_over(self, renewal: Renewal) -> None:
        for id in self._lapsed():
            row = self.rows.get(id)
            same = row is not None and row.renewals == renewal.renewals[id]
            if row is not None and same and self.settled and self._refusal(row) is None:
                await self._move_sessions_of(row)

    def _refusal(self, row: MachineRow) -> Refusal | None:
        me = Standing(self._member.id, self._lease, self._memory.promises, self._sightings)
        peer = Peer(row.id, row.epoch, row.rivals, row.sessions)
        return refuse_takeover(me, peer, boot_now(), self._policy)

    async def _move_sessions_of(self, row: MachineRow) -> None:
        to = _machines_for(await self._coordinator.movable(row.id), row, self.rows.values())
        if not to:
            return
        takeover, allowed = Takeover(row.epoch, row.renewals), False

        def begun(memory: FleetMemory) -> FleetMemory:
            # A promise may have been given while the database was asked.
            nonlocal allowed
            allowed = self._refusal(row) is None
            if not allowed:
                return memory
            return replace(memory, promises=begin_takeover(memory.promises, row.id, takeover))

        await self._remember(begun)
        if not allowed:
            return
        moved = await self._coordinator.take_over(self._member, row.id, row.epoch, row.renewals, to)
        self.counts.takeovers["done" if moved else "void"] += 1
        words = "moved to other machines" if moved else "not moved: another machine was faster"
        log.warning("machine %s is lost; %s sessions %s", row.name, len(to), words)

    async def _remember(self, change: Callable[[FleetMemory], FleetMemory]) -> None:
        """One change at a time: a promise may be asked for at any moment."""
        async with self._turn:
            memory = change(self._memory)
            if memory != self._memory:
                await asyncio.to_thread(save, self._path, memory)
                self._memory = memory


def _machines_for(
    sessions: Iterable[NewSession], lost: MachineRow, rows: Iterable[MachineRow]
) -> dict[str, int]:
    alive = [row for row in rows if row.alive and row.id != lost.id]
    chosen = place(
        [Placing(it.id, it.engine, it.labels, it.only_on) for it in sessions],
        [place_of(row) for row in alive],
    )
    ids = {row.name: row.id for row in alive}
    return {session: ids[name] for session, name in chosen.on.items()}


def place_of(row: MachineRow) -> Place:
    engines = frozenset(row.engines)
    return Place(row.name, row.capacity, row.sessions, row.labels, engines, row.drained)
