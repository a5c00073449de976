"""The database of a simulated fleet: each call is one transaction at the moment it arrives."""

from dataclasses import dataclass, field, replace

from scripts.simulation.fleet.world import World


@dataclass
class Row:
    epoch: int = 0
    renewals: int = 0
    rivals: frozenset[int] = frozenset()
    asked: int = 0
    """The machine's own number of its last renewal."""
    alive_until: float = 0.0
    """By the database's own clock, which jumps; it only says whom to name as a rival."""
    told: int = 0
    """The last loss for which the machine told what it runs."""


@dataclass
class Tables:
    machines: dict[int, Row] = field(default_factory=dict)
    owner: dict[str, int] = field(default_factory=dict)
    generation: int = 0
    """Rises with each change of an owner."""
    changed: dict[str, int] = field(default_factory=dict)
    """The generation of the last change of each session's owner."""
    told: dict[str, int] = field(default_factory=dict)
    """After a loss: the generation with which a machine told that it has the session."""
    halted: bool = False
    lost_after: int = 0
    """The generation of the records that are left."""
    losses: int = 0
    """That an operator accepted."""
    accepted: str = "never"
    """When an operator accepted a loss of records last."""

    def copy(self) -> "Tables":
        """By hand: each call makes one, and `deepcopy` was most of what a schedule cost."""
        return replace(
            self,
            machines={machine: replace(row) for machine, row in self.machines.items()},
            owner=self.owner.copy(),
            changed=self.changed.copy(),
            told=self.told.copy(),
        )


@dataclass(frozen=True)
class Answer:
    renewals: dict[int, int]
    epochs: dict[int, int]
    rivals: dict[int, frozenset[int]]
    owner: dict[str, int]
    changed: dict[str, int]
    alive: frozenset[int]
    generation: int
    accepted: bool
    settled: bool
    server: str
    """Another one after each start of the database and accepted loss of records."""
    halted: bool
    accepted_loss: str
    losses: int
    told: bool
    asked: int
    """The machine's own number of its last renewal, as the database has it."""


def came_late(last: int, asked: int) -> bool:
    """A later renewal of the machine was there before: it changes nothing."""
    return asked <= last


class Database:
    def __init__(self, world: World) -> None:
        self.world = world
        self.tables = Tables()
        self.clock_step = 0.0
        self.started = -1000.0
        """Since when its records are in use."""
        self.refuses = False
        """It answers, and refuses the machines: rights that are gone, newer tables."""
        self._copies: list[tuple[float, Tables]] = []

    @property
    def clock(self) -> float:
        return self.world.now + self.clock_step

    def renew(
        self,
        machine: int,
        epoch: int,
        rivals: frozenset[int],
        generation: int,
        renewals: int,
        *,
        losses: int,
        asked: int,
    ) -> Answer:
        """A machine that was taken over is answered with its new epoch and is not renewed."""
        self._remember()
        row, tables = self.tables.machines[machine], self.tables
        if came_late(row.asked, asked):
            return self._answer(machine, accepted=False)
        lost = generation > tables.generation or renewals > row.renewals or epoch > row.epoch
        known = losses < tables.losses
        if lost or losses > tables.losses:
            if not known and not tables.halted:
                tables.halted, tables.lost_after = True, tables.generation
            tables.generation = max(tables.generation, generation)
            tables.losses = max(tables.losses, losses)
            row.renewals = max(row.renewals, renewals)
        accepted = row.epoch == epoch or tables.halted or (known and row.epoch < epoch)
        if accepted:
            row.renewals += 1
            row.epoch = max(row.epoch, epoch)
            row.rivals, row.asked = rivals, asked
            row.alive_until = self.clock + self.world.policy.ttl
        return self._answer(machine, accepted)

    def take_over(self, machine: int, epoch: int, peer: int, renewals: int) -> None:
        self._remember()
        rows = self.tables.machines
        if self.tables.halted or rows[machine].epoch != epoch or rows[peer].renewals != renewals:
            return
        if machine not in rows[peer].rivals:
            return
        rows[peer].epoch += 1
        for session, owner in self.tables.owner.items():
            if owner == peer:
                self._give(session, machine)
        self.tables.generation += 1

    def hand_over(self, machine: int, epoch: int, renewals: int, session: str, to: int) -> None:
        """A planned move: the owner stopped the session before, and did not renew since."""
        self._remember()
        row = self.tables.machines[machine]
        owns = self.tables.owner[session] == machine and not self.tables.halted
        if owns and row.epoch == epoch and row.renewals == renewals:
            self._give(session, to)
            self.tables.generation += 1

    def _give(self, session: str, machine: int) -> None:
        self.tables.owner[session] = machine
        self.tables.changed[session] = self.tables.generation + 1

    def tell(self, machine: int, epoch: int, held: dict[str, int]) -> None:
        """What a machine has, by the generation in which it heard that: newer than the records that
        are left, it stays there."""
        self._remember()
        tables, row = self.tables, self.tables.machines[machine]
        if not tables.halted or row.epoch != epoch:
            return
        for session, number in held.items():
            told = tables.told.get(session, 0)
            known = told or tables.changed.get(session, 0)
            if number > max(known, tables.lost_after):
                self._give(session, machine)
                tables.told[session] = number
        tables.generation += 1
        row.told = tables.losses + 1

    def accept(self) -> None:
        """An operator accepts that records were lost, once for each loss: when a machine noticed it
        and all that live told what they run."""
        rows = self.tables.machines.values()
        silent = any(it.alive_until > self.clock and it.told <= self.tables.losses for it in rows)
        if silent or not self.tables.halted:
            self.world.after(0.5, self.accept)
            return
        self._remember()
        self.tables.halted = False
        self.tables.losses += 1
        self.tables.told = {}
        self.tables.accepted = f"{self.world.now}"
        self.tables.generation += 1
        self.started = self.world.now

    def lose(self, seconds: float) -> None:
        """A copy that lacks the last seconds takes its place."""
        older = [tables for at, tables in self._copies if at <= self.world.now - seconds]
        if older:
            self.tables = older[-1].copy()
            self.started = self.world.now

    def promoted(self, behind: float) -> "Database":
        """A standby takes writes, and lacks the last seconds; this one lives on."""
        fresh = Database(self.world)
        older = [tables for at, tables in self._copies if at <= self.world.now - behind]
        fresh.tables = (older[-1] if older else self.tables).copy()
        fresh.clock_step, fresh.started = self.clock_step, self.world.now
        return fresh

    def _remember(self) -> None:
        now = self.world.now
        self._copies = [it for it in self._copies if it[0] > now - 5] + [(now, self.tables.copy())]

    def _answer(self, machine: int, accepted: bool) -> Answer:
        rows, clock = self.tables.machines, self.clock
        return Answer(
            {id: row.renewals for id, row in rows.items()},
            {id: row.epoch for id, row in rows.items()},
            {id: row.rivals for id, row in rows.items()},
            dict(self.tables.owner),
            dict(self.tables.changed),
            frozenset(id for id, row in rows.items() if row.alive_until > clock and id != machine),
            self.tables.generation,
            accepted,
            self.world.now - self.started >= self.world.policy.ttl,
            f"{self.started}",
            self.tables.halted,
            self.tables.accepted,
            self.tables.losses,
            rows[machine].told > self.tables.losses,
            rows[machine].asked,
        )
