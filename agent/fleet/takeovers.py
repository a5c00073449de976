"""Watches the other machines' renewals, and moves the sessions of one whose lease has ended."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent.clock import boot_now
from agent.core.fleet.figures import FleetCounts
from agent.core.fleet.lease import Lease, LeasePolicy
from agent.core.fleet.promises import Takeover, settle
from agent.core.fleet.sightings import Sightings, forgotten, look, stands_still, vouched
from agent.core.fleet.takeover import Peer, Refusal, Standing, Word, elsewhere, refuse_takeover
from agent.fleet.coordinator import MachineRow, Member, Renewal
from agent.fleet.fleet_file import Memory, Rival
from agent.fleet.places import machines_for
from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.fleet.words import MOST, AskWord, words_of

log = logging.getLogger(__name__)

READ_EVERY = 60.0
"""Seconds: a machine that is asked for a promise is asked at its present address."""


@dataclass(slots=True, eq=False, repr=False)
class Takeovers:
    coordinator: PostgresCoordinator
    memory: Memory
    policy: LeasePolicy
    counts: FleetCounts
    rows: Mapping[int, MachineRow] = field(init=False, default_factory=dict)
    """The machines, as they were read last."""
    _read_at: float = field(init=False, default=0.0)
    sightings: Sightings = field(init=False, default_factory=Sightings)
    ask_word: AskWord | None = field(init=False, default=None)
    server: str = field(init=False, default="")
    """How the database named itself in the last renewal."""
    sending: set[int] = field(init=False, default_factory=set)
    """Machines whose takeover is being written down: they get no promise."""
    _words: dict[int, Word] = field(init=False, default_factory=dict)
    """What machines said whose numbers stand still."""

    async def see(self, member: Member, renewal: Renewal, answered: float) -> None:
        """Take in what a renewal's answer, there at `answered`, tells of the other machines."""
        before, self.server = self.sightings.machines, renewal.server
        self.sightings = look(self.sightings, renewal.renewals, answered, self.policy)
        moved = {id for id, it in before.items() if it.renewals != renewal.renewals.get(id)}
        self._words = {id: it for id, it in self._words.items() if id not in moved}
        fresh = answered - self._read_at < READ_EVERY
        if fresh and not renewal.alive - self.rows.keys() and not self._others(member):
            return
        self.rows = {row.id: row for row in await self.coordinator.machines()}
        self._read_at = answered
        epochs = {row.id: row.epoch for row in self.rows.values()}
        rows = self.rows.values()
        others = tuple(Rival(row.id, row.name, row.address, row.epoch) for row in rows)
        await self.memory.change(
            lambda it: replace(
                it, takeovers=settle(it.takeovers, epochs, renewal.renewals), others=others
            )
        )

    def vouch(self, machine: int) -> None:
        """This machine promised it to wait: as if it had renewed now."""
        self.sightings = vouched(self.sightings, {machine}, boot_now())

    async def take_over(
        self, member: Member, lease: Lease, renewal: Renewal, settled: bool
    ) -> None:
        """Whatever may be taken over now. Who lives is asked before the records are settled, too:
        one that stands still for a moment when they are has said that its lease holds."""
        await self._ask(member)
        if not settled:
            return
        for id in self._others(member):
            row = self.rows.get(id)
            same = row is not None and row.renewals == renewal.renewals[id]
            if row is not None and same and self._refusal(member, lease, row) is None:
                await self._move_sessions_of(row, member, lease)

    @property
    def elsewhere(self) -> list[str]:
        """The names of machines that renew their leases in another database."""
        found = elsewhere(self._words, self.server)
        return sorted(row.name for id, row in self.rows.items() if id in found)

    async def _ask(self, member: Member) -> None:
        """One that says that its lease holds counts as seen: by promises, or in another database,
        its number here stands still."""
        still = stands_still(self.sightings, boot_now(), self.policy) - {member.id}
        if self.ask_word is None or not still:
            return
        longest = sorted(still, key=lambda id: self.sightings.machines[id].at)[:MOST]
        rows = [(id, self.rows[id]) for id in longest if id in self.rows]
        words = await words_of(rows, member, self.ask_word, self.policy.renew_every / 2)
        self._words |= words
        holding = {id for id, it in words.items() if it.holds}
        now = boot_now()
        self.sightings = vouched(self.sightings, holding, now)
        silent = forgotten(self.sightings, now, self.policy)
        self._words = {id: it for id, it in self._words.items() if id not in silent}

    def lapsed(self) -> dict[int, int]:
        """Machines whose number stands still for so long that they may be taken over: id → it."""
        now, ttl = boot_now(), self.policy.ttl
        seen = self.sightings.machines.items()
        return {id: it.renewals for id, it in seen if now >= it.at + ttl}

    def _others(self, member: Member) -> list[int]:
        return [id for id in self.lapsed() if id != member.id]

    def _refusal(self, member: Member, lease: Lease, row: MachineRow) -> Refusal | None:
        found = elsewhere(self._words, self.server)
        me = Standing(member.id, lease, self.sightings, elsewhere=found)
        peer = Peer(row.id, row.epoch, frozenset(row.rivals), row.sessions)
        return refuse_takeover(me, peer, boot_now(), self.policy)

    async def _move_sessions_of(self, row: MachineRow, member: Member, lease: Lease) -> None:
        movable = await self.coordinator.movable(row.id)
        lapsed = self.lapsed()
        to = machines_for(movable, [it for it in self.rows.values() if it.id not in lapsed])
        if not to or not await self._begin(row, member, lease):
            return
        moved = await self.coordinator.take_over(member, row.id, row.epoch, row.renewals, to)
        self.counts.takeovers["done" if moved else "void"] += 1
        words = "moved to other machines" if moved else "not moved: another machine was faster"
        log.warning("machine %s is lost; %s sessions %s", row.name, len(to), words)

    async def _begin(self, row: MachineRow, member: Member, lease: Lease) -> bool:
        """Write down that it is sent; False: a promise was given while the database was asked."""
        if self._refusal(member, lease, row) is not None:
            return False
        sent = {row.id: Takeover(row.epoch, row.renewals)}
        self.sending.add(row.id)
        try:
            await self.memory.change(lambda it: replace(it, takeovers={**it.takeovers, **sent}))
        finally:
            self.sending.discard(row.id)
        return True
