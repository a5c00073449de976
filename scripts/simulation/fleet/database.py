"""The database of a simulated fleet: each call is one transaction at the moment it arrives."""

from bisect import bisect
from dataclasses import dataclass, field, replace
from operator import itemgetter

from scripts.simulation.fleet.files import Content, Here, Stored
from scripts.simulation.fleet.world import World


@dataclass(frozen=True, slots=True)
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
    place: str = ""
    """The boot and the folder of the agent that joined as this machine."""


@dataclass(slots=True)
class Tables:
    machines: dict[int, Row] = field(default_factory=dict)
    owner: dict[str, int] = field(default_factory=dict)
    generation: int = 0
    """Rises with each change of an owner."""
    changed: dict[str, int] = field(default_factory=dict)
    """The generation of the last change of each session's owner."""
    epochs: dict[str, int] = field(default_factory=dict)
    """Of each session: counts its owners."""
    copies: dict[str, Stored] = field(default_factory=dict)
    pairings: dict[str, Content] = field(default_factory=dict)
    """What is true, whatever the machines believe: the last pairing of each session of which a
    machine was told that its copy is stored."""
    told: dict[str, int] = field(default_factory=dict)
    """After a loss: the generation with which a machine told that it has the session."""
    halted: bool = False
    lost_after: int = 0
    """The generation of the records that are left."""
    losses: int = 0
    """That an operator accepted."""
    accepted: str = "never"
    """When an operator accepted a loss of records last."""

    def kept(self) -> "Tables":
        """As they are now; what is in them does not change."""
        return replace(
            self,
            machines=dict(self.machines),
            owner=dict(self.owner),
            changed=dict(self.changed),
            epochs=dict(self.epochs),
            copies=dict(self.copies),
            pairings=dict(self.pairings),
            told=dict(self.told),
        )


@dataclass(frozen=True, slots=True)
class Answer:
    renewals: dict[int, int]
    epochs: dict[int, int]
    rivals: dict[int, frozenset[int]]
    owner: dict[str, int]
    changed: dict[str, int]
    session_epochs: dict[str, int]
    copies: dict[str, int]
    """The number of each session's stored copy."""
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


def same_place(place: str, joined: str) -> bool:
    """Else it is a copy of the machine, or this machine before its boot: it renews nothing."""
    return place == joined


def follows(number: int, stored: int) -> bool:
    """A copy that arrives late replaces no newer one."""
    return number > stored


def may_live(seconds: float, ttl: float) -> bool:
    """Nobody can have watched a machine for a ttl since its records are in use: it may live, though
    older records have it as long gone."""
    return seconds < ttl


class Database:
    def __init__(self, world: World) -> None:
        self.world = world
        self.tables = Tables()
        self.clock_step = 0.0
        self.started = -1000.0
        """Since when its records are in use."""
        self.split = False
        """Another one takes writes as well: what is stored in one of them is lost with it."""
        self.refuses = False
        """It answers, and refuses the machines: rights that are gone, newer tables."""
        self._before: list[tuple[float, Tables]] = []
        """The tables before each change."""

    @property
    def clock(self) -> float:
        return self.world.now + self.clock_step

    def join(self, machine: int, place: str, known: int, watched: int) -> tuple[bool, int]:
        """False where another agent may run as this machine; with the number to watch. `known` is
        the last one that it heard itself, `watched` one that it saw stand still for a ttl."""
        self._remember()
        row = self.tables.machines[machine]
        off = row.alive_until <= self.clock and row.renewals <= known
        twice = row.place != "" and not same_place(place, row.place)
        if twice and row.renewals != watched and not off:
            return False, row.renewals
        self.tables.machines[machine] = replace(row, place=place)
        return True, row.renewals

    def renew(
        self,
        machine: int,
        epoch: int,
        rivals: frozenset[int],
        generation: int,
        renewals: int,
        *,
        place: str,
        losses: int,
        asked: int,
    ) -> Answer | None:
        """A machine that was taken over is answered with its new epoch and is not renewed; one that
        is there twice is not known."""
        row, tables = self.tables.machines[machine], self.tables
        if not same_place(place, row.place):
            return None
        self._remember()
        if came_late(row.asked, asked):
            return self._answer(machine, accepted=False)
        lost = generation > tables.generation or renewals > row.renewals or epoch > row.epoch
        known = losses < tables.losses
        if lost or losses > tables.losses:
            if not known and not tables.halted:
                tables.halted, tables.lost_after = True, tables.generation
            tables.generation = max(tables.generation, generation)
            tables.losses = max(tables.losses, losses)
            row = replace(row, renewals=max(row.renewals, renewals))
        accepted = row.epoch == epoch or tables.halted or (known and row.epoch < epoch)
        if accepted:
            row = replace(
                row,
                renewals=row.renewals + 1,
                epoch=max(row.epoch, epoch),
                rivals=rivals,
                asked=asked,
                alive_until=self.clock + self.world.policy.ttl,
            )
        tables.machines[machine] = row
        return self._answer(machine, accepted)

    def take_over(self, machine: int, epoch: int, peer: int, renewals: int) -> None:
        self._remember()
        rows = self.tables.machines
        if self.tables.halted or rows[machine].epoch != epoch or rows[peer].renewals != renewals:
            return
        if machine not in rows[peer].rivals:
            return
        rows[peer] = replace(rows[peer], epoch=rows[peer].epoch + 1)
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

    def _give(self, session: str, machine: int, epoch: int | None = None) -> None:
        tables = self.tables
        tables.owner[session] = machine
        tables.changed[session] = tables.generation + 1
        tables.epochs[session] = tables.epochs[session] + 1 if epoch is None else epoch

    def store_copy(self, machine: int, epoch: int, session: str, here: Here) -> bool:
        tables, stored = self.tables, self.tables.copies[session]
        owner = tables.owner[session], tables.machines[machine].epoch, tables.epochs[session]
        if owner != (machine, epoch, here.epoch):
            return False
        if not follows(here.number, stored.number):
            return False
        self._remember()
        if stored.content.acknowledged and not here.content.holds(stored.content):
            self.world.violate(f"a copy of {session} by m{machine} replaces a newer one")
        tables.copies[session] = Stored(here.number, here.content)
        return True

    def acknowledge(self, session: str, content: Content) -> None:
        """A machine is told that it is stored; records that were lost meanwhile hold no pairing."""
        tables = self.tables
        if self.split or not tables.copies[session].content.holds(content):
            return
        content.acknowledged = True
        known, paired = tables.pairings.get(session), content.last_pairing()
        if paired is not None and (known is None or paired.holds(known)):
            tables.pairings[session] = self.world.pairings[session] = paired

    def logs_in(self, session: str, content: Content) -> None:
        world = self.world
        paired = (world.pairings if world.keeps_all else self.tables.pairings).get(session)
        if paired is not None and not content.holds(paired):
            world.violate(f"{session} runs without its last pairing")

    def tell(self, machine: int, epoch: int, held: dict[str, tuple[int, int]]) -> None:
        """What a machine has, by the generation in which it heard that: newer than the records that
        are left, it stays there."""
        self._remember()
        tables, row = self.tables, self.tables.machines[machine]
        if not tables.halted or row.epoch != epoch:
            return
        for session, (number, in_epoch) in held.items():
            told = tables.told.get(session, 0)
            known = told or tables.changed.get(session, 0)
            if number > max(known, tables.lost_after):
                self._give(session, machine, in_epoch)
                tables.told[session] = number
        tables.generation += 1
        tables.machines[machine] = replace(row, told=tables.losses + 1)

    def accept(self) -> None:
        """An operator accepts that records were lost, once for each loss: when a machine noticed it
        and all that live told what they run."""
        young = may_live(self.world.now - self.started, self.world.policy.ttl)
        silent = any(
            it.told <= self.tables.losses and (young or it.alive_until > self.clock)
            for it in self.tables.machines.values()
        )
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
        self.tables = self._as_of(seconds)
        self.started = self.world.now

    def promoted(self, behind: float) -> "Database":
        """A standby takes writes, and lacks the last seconds; this one lives on."""
        fresh = Database(self.world)
        fresh.tables = self._as_of(behind)
        fresh.clock_step, fresh.started = self.clock_step, self.world.now
        for it in (self, fresh):
            it.split, it.tables.pairings = True, {}
            for stored in it.tables.copies.values():
                stored.content.acknowledged = False
        return fresh

    def _remember(self) -> None:
        self._before.append((self.world.now, self.tables.kept()))

    def _as_of(self, seconds: float) -> Tables:
        """The tables as they were so long ago: before the first change since."""
        since = bisect(self._before, self.world.now - seconds, key=itemgetter(0))
        return [*self._before[since : since + 1], (0.0, self.tables)][0][1].kept()

    def _answer(self, machine: int, accepted: bool) -> Answer:
        rows, clock = self.tables.machines, self.clock
        return Answer(
            {id: row.renewals for id, row in rows.items()},
            {id: row.epoch for id, row in rows.items()},
            {id: row.rivals for id, row in rows.items()},
            dict(self.tables.owner),
            dict(self.tables.changed),
            dict(self.tables.epochs),
            {session: it.number for session, it in self.tables.copies.items()},
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
