"""Keeps this machine's lease: renews it, asks its rivals while the database is away, takes over.

One loop of one machine. What it decides with is `agent/core/fleet/`; `scripts/simulate fleet`
plays the same steps against every fault that we know.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from agent.clock import boot_id, boot_now
from agent.core.fleet.figures import FleetCounts
from agent.core.fleet.lease import Lease, LeasePolicy, extended, renewed
from agent.core.fleet.settling import Settling
from agent.core.fleet.sightings import rivals_after
from agent.errors import TryLater, WaError
from agent.fleet.coordinator import Machine, Member, Owned, Renewal
from agent.fleet.fleet_file import FleetMemory, Memory
from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.fleet.resuming import Resuming
from agent.fleet.rivals import AskRival, promised_by, promises
from agent.fleet.takeovers import Takeovers

log = logging.getLogger(__name__)

_NO_WORD = {"fleet_database", "fleet_database_tls", "fleet_schema"}  # as if it were away
Changed = Callable[[Sequence[Owned], Lease], None]
"""What this machine may run, and until when; called at each renewal and each promise."""


class Keeper:
    """Made by `join`; `run` keeps the lease until it is cancelled."""

    def __init__(
        self,
        coordinator: PostgresCoordinator,
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
        self._memory = Memory(path)
        self._ask_rival, self._changed = ask_rival, changed
        self.counts = counts or FleetCounts()
        self.takeovers = Takeovers(coordinator, self._memory, policy, self.counts)
        self.losses = 0
        """How often records were lost, were accepted, and what this machine owns was read again."""
        self._unread = False
        """Records were lost, and what this machine owns was not read since."""
        self.resuming = Resuming()
        """Called instead of `changed` until it was read what this machine owns."""
        self._rejoined = False
        """The database did not know this machine: what it owned then is read again."""
        self.settled = False
        """Whether owners may change: no session is taken over or started otherwise."""
        self._settling = Settling()
        self.database_error = ""
        """Why the last renewal failed; "" = it did not."""
        self.database_since_wall = time.time()
        self.lease_by = ""
        """What extended the lease last: renewal or promises."""
        self._member: Member
        self._lease = Lease(0.0)
        self._rivals = frozenset[int]()
        self._owned: Sequence[Owned] = ()
        self._changes = -1
        self._loaded = False
        self.joined = asyncio.Event()
        """Set when the database knows this machine."""
        self.commands_wait = False
        self.on_renewal: list[Callable[[Renewal], None]] = []
        """Called with each renewal that the database accepted."""
        self._begun = self._answered = 0
        """The number of the last renewal that was begun, and of the last that was answered."""
        self._answer = asyncio.Condition()
        self._wake = asyncio.Event()

    async def load(self) -> None:
        """What this machine must remember, from its disk."""
        self._boot = boot_id()
        await self._memory.load(self._boot, boot_now(), self._policy)
        known = self._memory.now
        self._rivals, self._unread = known.rivals, known.lost
        if member := self.resuming.begin(known, self._boot, self._policy.ttl, self._machine.place):
            self._member = member
        self._loaded = True

    async def join(self) -> Member:
        if not self._loaded:
            await self.load()
        known = self._memory.now
        machine = replace(self._machine, installation=known.installation, renewals=known.renewals)
        member = await self._coordinator.join(machine)
        # A database that lost records says so at the first renewal: it compares the numbers.
        renewals = max(member.renewals, known.renewals)
        if self.resuming.active:
            self.resuming.joined(self._member, member)
        self._member = replace(member, renewals=renewals, losses=known.losses)
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

    @property
    def halted(self) -> str:
        """Why no session changes its machine until an operator accepts it."""
        return self._memory.now.halted

    async def run(self) -> None:
        if self.resuming.active and not self.joined.is_set():
            await self._ask_rivals()  # the lease may end before the next call gives up
        while True:
            self._wake.clear()
            begun = boot_now()
            try:
                await self._turn()
            except WaError as error:
                self._note_database(str(error))
            spent = boot_now() - begun
            try:
                async with asyncio.timeout(max(self._policy.renew_every - spent, 0.05)):
                    await asyncio.sleep(0.05)
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _turn(self) -> None:
        try:
            if not self.joined.is_set():
                await self.join()
            await self.step()
        except WaError as error:
            if error.code == "not_a_member":  # an operator forgot a machine that lives
                self.joined.clear()
                self._rejoined, self.resuming.active = True, False
                await self._memory.change(lambda it: replace(it, renewed=None))
            elif error.code in _NO_WORD and self.resuming.active and not self.joined.is_set():
                # Its file says that it lives: the next agent would take it for an older image.
                await self._memory.change(lambda it: it.asking(self._rivals))
                await self._ask_rivals()
            raise

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
        await self._memory.change(lambda it: it.asking(self._rivals))
        number = self._begun = self._begun + 1
        try:
            renewal = await self._coordinator.renew(
                self._member, self._rivals, self._memory.now.generation, self._memory.now.asked
            )
        except WaError as error:
            if error.code == "not_a_member":
                raise
            self._note_database(str(error))
            await self._ask_rivals()
            return
        self.counts.renewal_seconds.note(boot_now() - begun)
        self._note_database("")
        await self._hear(renewal, begun)
        async with self._answer:
            self._answered = number
            self._answer.notify_all()
        if renewal.accepted:
            await self.takeovers.take_over(self._member, self._lease, renewal, self.settled)

    async def next_renewal(self) -> None:
        """Until one is answered that begins from now on: an earlier hand-over is void or done."""
        wanted = self._begun + 1
        self.wake()
        async with self._answer:
            await self._answer.wait_for(lambda: self._answered >= wanted)

    def would_promise(self, machine: int, epoch: int, accepted: str = "") -> bool:
        """Whether another machine, which has heard of that accepted loss, gets a promise."""
        sending = machine in self.takeovers.sending
        return not sending and promises(self.memory, machine, epoch, accepted, self._policy)

    def promise(self, machine: int, epoch: int, accepted: str = "") -> bool:
        """It asks for one: for a ttl from now it is not taken over."""
        if given := self.would_promise(machine, epoch, accepted):
            self.takeovers.vouch(machine)
        self.counts.promises["given" if given else "refused"] += 1
        return given

    @property
    def lease(self) -> Lease:
        return self._lease

    @property
    def memory(self) -> FleetMemory:
        return self._memory.now

    async def _hear(self, renewal: Renewal, begun: float) -> None:
        answered = boot_now()
        held = self._lease.holds(answered)
        self._hear_epoch(renewal)
        await self._hear_numbers(renewal)
        if not renewal.accepted:
            return
        self._settling = self._settling.heard(renewal.server, answered)
        # What an agent before this one promised in a halted fleet may last for a ttl.
        its_word = renewal.settled and not self._memory.now.lost
        settled = self._settling.settled(its_word, answered, self._policy)
        self.settled = settled and not renewal.halted
        if not self.settled and not held:
            # It may have been taken over in records that were lost: it starts nothing by itself.
            self._owned, self._changes = (), -1
        self._lease, self.lease_by = renewed(self._lease, begun, self._policy), "renewal"
        self.counts.renewals["renewed"] += 1
        try:
            await self.takeovers.see(self._member, renewal, answered)
            seen = self.takeovers.sightings
            self._rivals = rivals_after(self._rivals, renewal.alive, seen, answered, self._policy)
            if not renewal.halted and (self._memory.now.lost or renewal.changes != self._changes):
                await self._read_owned(renewal.changes)
        finally:  # what the database does not tell ends no session that runs
            self._pass_on()
        self.commands_wait = renewal.commands
        for hear in self.on_renewal:
            hear(renewal)

    def _hear_epoch(self, renewal: Renewal) -> None:
        known = self._member.epoch
        other = renewal.epoch != known or self._rejoined
        if renewal.epoch > known or (other and not renewal.halted):
            # Others took this machine's sessions over: what it runs is not its own any more.
            log.error("other machines took over what this machine owned in epoch %s", known)
            self._rejoined = self.resuming.active = False
            self.counts.renewals["taken_over"] += 1
            self._owned, self._lease, self._changes = (), Lease(0.0), -1
            self._changed(self._owned, self._lease)
        self._member = replace(self._member, epoch=max(renewal.epoch, known))

    async def _hear_numbers(self, renewal: Renewal) -> None:
        """They are on the disk before anything follows from the answer."""
        halted, known = renewal.halted, self._memory.now.accepted
        if halted and halted != self.halted:
            log.error("no session changes its machine: %s", halted)
        number = max(renewal.renewals[self._member.id], self._member.renewals)
        losses = self._member.losses if halted else max(renewal.losses, self._member.losses)
        self._member = member = replace(self._member, renewals=number, losses=losses)
        boot, ttl = self._boot, self._policy.ttl
        await self._memory.change(lambda it: it.heard(renewal, member, boot, ttl))
        accepted = self._memory.now.accepted.follows(known)
        self._unread = self._unread or accepted or bool(halted)

    async def _read_owned(self, changes: int) -> None:
        """What another machine owns now ends here at once; what is new here begins only when the
        records are settled: its former owner has ended by then."""
        owned = await self._coordinator.owned(self._member)
        if not self.settled:
            self.resuming.mine = ids = {it.id for it in owned}
            self._owned = [it for it in self._owned if it.id in ids]
            self._unread = False
            return
        self.losses += self._memory.now.lost
        await self._memory.change(lambda it: replace(it, lost=False))
        self._owned, self._changes = owned, changes
        self._unread = self.resuming.active = False

    def _pass_on(self) -> None:
        """Nothing is said before it is known what this machine owns, and what is known from
        before a loss ends with the loss: another machine may own it."""
        if self._unread and not self.halted:
            return
        if self._changes >= 0:
            self._changed(self._owned, self._lease)
        else:
            self.resuming.pass_on(self._lease)

    async def _ask_rivals(self) -> None:
        begun, memory, patience = boot_now(), self.memory, self._policy.renew_every
        promised = await promised_by(memory, self._member, self._ask_rival, patience)
        all_promised = memory.rivals <= promised
        self.lease_by = "promises" if all_promised else self.lease_by
        self.counts.renewals["promised" if all_promised else "failed"] += 1
        self._lease = extended(self._lease, begun, memory.rivals, promised, self._policy)
        self._pass_on()
