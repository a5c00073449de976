"""One seeded schedule: three to five machines, a database, and what happens to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from scripts.simulation.fleet.database import Database, Row
from scripts.simulation.fleet.disk import Disk
from scripts.simulation.fleet.files import Content, Here, Stored
from scripts.simulation.fleet.machine import Machine
from scripts.simulation.fleet.world import World

LENGTH = 280.0
SESSIONS = 6
QUIET = 120.0
"""No fault begins in the last so many seconds: then every session must run again."""

CROWDED = 45.0
"""All faults begin within so many seconds: two that meet find more than two alone."""


@dataclass(frozen=True)
class Outcome:
    seed: str
    violations: tuple[str, ...]
    halted: bool
    starving: tuple[str, ...]
    """Sessions that no machine runs at the end, though nothing is at fault any more."""
    takeovers: int
    losses: int
    """Of records, that an operator accepted; each of them once."""
    again: tuple[str, ...]
    """Sessions that logged in more than once."""


class Schedule:
    def __init__(self, seed: str, only: str = "") -> None:
        self.seed = seed
        self.world = world = World(seed)
        self.random = world.random
        self.database = database = Database(world)
        self.machines: dict[int, Machine] = {}
        count = self.random.choice((2, 3, 3, 3, 5))
        for id in range(count):
            database.tables.machines[id] = Row()
        disks = [Disk("boot 0") for _ in range(count)]
        for number in range(SESSIONS):
            self._make_session(f"s{number}", disks)
        for id, disk in enumerate(disks):
            self.machines[id] = Machine(world, id, database, self.machines, disk)
        first = self.random.uniform(5, LENGTH - QUIET - CROWDED)
        if only:
            world.after(first, getattr(self, f"_{only}"))
            return
        if self.random.random() < 0.2:  # alone: README says what a fleet does not survive
            alone = (self._two_primaries, self._twin, self._restore_database)
            world.after(first, self.random.choice(alone))
            return
        for _ in range(self.random.randint(1, 7)):
            fault = self.random.choice(self._faults())
            world.after(first + self.random.uniform(0, CROWDED), fault)

    def _make_session(self, id: str, disks: Sequence[Disk]) -> None:
        """It runs since long ago: its copy is stored."""
        tables, owner = self.database.tables, self.random.randrange(len(disks))
        tables.owner[id], tables.epochs[id] = owner, 0
        tables.copies[id] = Stored(1, Content())
        disks[owner].files[id] = Here(0, 1, tables.copies[id].content)

    def play(self) -> Outcome:
        self.world.play(LENGTH)
        running = {
            session
            for session, runs in self.world.workers.items()
            if any(worker.runs for worker in runs)
        }
        owners = self.database.tables.owner
        return Outcome(
            self.seed,
            tuple(self.world.violations),
            self.database.tables.halted,
            tuple(sorted(owners.keys() - running)),
            sum(row.epoch for row in self.database.tables.machines.values()),
            self.database.tables.losses,
            tuple(sorted(id for id, count in self.world.logins.items() if count > 1)),
        )

    def _faults(self) -> tuple[Callable[[], None], ...]:
        return (
            self._kill_agent,
            self._crash_worker,
            self._cut_power,
            self._freeze,
            self._cut_off,
            self._cut_off,
            self._cut_one_way,
            self._cut_peers,
            self._database_away,
            self._restart_without_database,
            self._step_clock,
            self._move,
            self._lose_records,
            self._lose_move,
            self._hold,
            self._hold_and_cut_off,
            self._refuse,
            self._fill_disk,
            self._restore_image,
        )

    def _refuse(self) -> None:
        """The database refuses what it is asked: rights that are gone, newer tables."""
        self.database.refuses = True
        self.world.after(self._long(), partial(setattr, self.database, "refuses", False))

    def _fill_disk(self) -> None:
        """The state disk of a machine is full or read-only, now and then for ever: not where it is
        the last one that was alive, which no other one may take over."""
        machine = self._machine()
        others = self.machines.keys() - {machine.id}
        known = all(others <= named for named in machine.disk.named.values())
        for_ever = self.random.random() < 0.5 and self._may_lose() and known
        if for_ever and not any(it.disk.full for it in self.machines.values()):
            machine.disk.full = True
        elif not machine.disk.full:
            machine.disk.full = True
            self.world.after(self._long(), partial(setattr, machine.disk, "full", False))

    def _restore_image(self) -> None:
        """A machine's disk is as it was up to a minute before, in another boot or in the same."""
        machine = self._machine()
        image, boots = machine.disk.image(), self.random.random() < 0.5
        at = self.random.uniform(1, 60)
        self.world.after(at, lambda: machine.restore(image, boots=boots))

    def _twin(self) -> None:
        """A machine is copied with its disk, on its host or another one, and both run. The first
        one reaches the database while it lives, or nothing."""
        first = self._machine()
        image, other_host = first.disk.image(), self.random.random() < 0.5

        def begin() -> None:
            world, database, peers = self.world, self.database, self.machines
            Machine(world, first.id, database, peers, image, copy_of=first, other_host=other_host)

        self.world.after(self.random.choice((0.0, self.random.uniform(0, 60))), begin)
        for _ in range(self.random.randint(0, 3)):
            fault = self.random.choice(
                (self._freeze, self._crash_worker, self._move, self._kill_agent, self._cut_power)
            )
            self.world.after(self.random.uniform(0, 60), fault)
        if self.random.random() < 0.5:
            self.world.after(self.random.uniform(0, 60), partial(self._restart, first))

    def _restart(self, machine: Machine) -> None:
        machine.cut_power()
        run = machine.run
        self.world.after(self._long(), lambda: machine.boot() if machine.run == run else None)

    def _restore_database(self) -> None:
        """All of it is as it was at any moment since its beginning, after moves and takeovers; an
        operator accepts that. What machines run is newer, and stays."""
        self.world.keeps_all = True
        for _ in range(self.random.randint(0, 4)):
            fault = self.random.choice((self._move, self._move, self._restart_shortly))
            self.world.after(self.random.uniform(0, 15), fault)
        at = self.random.uniform(55, 60)
        self.world.after(at, lambda: self.database.lose(self.random.uniform(0.5, self.world.now)))
        self.world.after(at + self.random.uniform(1, 30), self.database.accept)

    def _restart_shortly(self) -> None:
        """Off for long enough that its sessions are taken over, or not."""
        machine = self._machine()
        machine.cut_power()
        run, away = machine.run, self.random.uniform(1, 35)
        self.world.after(away, lambda: machine.boot() if machine.run == run else None)

    def _two_primaries(self) -> None:
        """A standby is promoted while the old primary lives, and some machines go on there. One may
        die, others stand still for a moment; all that live reach each other. Then the old primary
        is stopped, and an operator accepts what is lost."""
        self.database = new = self.database.promoted(self.random.uniform(0.0, 2.0))
        machines, length = list(self.machines.values()), self.random.uniform(30, 60)
        for machine in self.random.sample(machines, self.random.randint(1, len(machines) - 1)):
            self.world.after(self.random.uniform(0, 8), partial(machine.lead_to, new))
        if self.random.random() < 0.6:
            dying = self._machine()
            dies = self.random.choice((dying.cut_power, dying.kill_agent))
            self.world.after(self.random.uniform(0, length), dies)
            self.world.after(length + self.random.uniform(1, 30), partial(self._boot, dying))
        for _ in range(self.random.randint(0, 3)):
            fault = self.random.choice((self._freeze_shortly, self._crash_worker, self._move_here))
            self.world.after(self.random.uniform(0, length), fault)
        self.world.after(length, partial(self._heal, new))

    def _heal(self, database: Database) -> None:
        database.split = False
        for machine in self.machines.values():
            machine.lead_to(database)
        self.world.after(self.random.uniform(5, 30), database.accept)

    def _boot(self, machine: Machine) -> None:
        if not machine.up:
            machine.boot()

    def _freeze_shortly(self) -> None:
        self._machine().freeze(self.random.uniform(1, 5))

    def _move_here(self) -> None:
        """Between two machines that use the same database."""
        machine = self._machine()
        to = [it for it in self.machines.values() if it.database is machine.database]
        if machine.workers:
            machine.move(self.random.choice(sorted(machine.workers)), self.random.choice(to).id)

    def _machine(self) -> Machine:
        return self.random.choice(list(self.machines.values()))

    def _long(self) -> float:
        return self.random.choice((2.0, 15.0, 25.0, 60.0)) * self.random.uniform(0.5, 1.5)

    def _kill_agent(self) -> None:
        machine = self._machine()
        machine.kill_agent()
        run = machine.run
        self.world.after(
            self._long(), lambda: machine.start_agent() if machine.run == run else None
        )

    def _cut_power(self) -> None:
        machine = self._machine()
        machine.cut_power()
        run = machine.run
        self.world.after(self._long(), lambda: machine.boot() if machine.run == run else None)

    def _freeze(self) -> None:
        self._machine().freeze(self._long())

    def _crash_worker(self) -> None:
        self._machine().crash_worker()

    def _cut(self, *ways: tuple[str, str]) -> None:
        self._cut_for(self._long(), *ways)

    def _cut_off(self) -> None:
        name = self._machine().name
        self._cut((name, "db"), ("db", name))

    def _cut_one_way(self) -> None:
        name = self._machine().name
        self._cut(self.random.choice(((name, "db"), ("db", name))))

    def _cut_peers(self) -> None:
        name = self._machine().name
        others = [machine.name for machine in self.machines.values() if machine.name != name]
        ways = [(name, other) for other in others] + [(other, name) for other in others]
        self._cut(*(ways if self.random.random() < 0.5 else self.random.sample(ways, 1)))

    def _hold(self) -> None:
        """Some of what a machine sends to the database, or to another one, arrives up to 90 s late,
        in any order, also after the machine went on over a new connection."""
        name = self._machine().name
        others = [it.name for it in self.machines.values() if it.name != name]
        way = (name, self.random.choice(["db", "db", *others]))
        self.world.held.add(way)
        self.world.after(self._long(), partial(self.world.held.discard, way))

    def _hold_and_cut_off(self) -> None:
        """A renewal is held; a rival that it names goes away and returns. When the renewal arrives,
        its machine is cut off from the database and goes on by the promises of the others."""
        machine, other = self.random.sample(list(self.machines.values()), 2)
        way = (machine.name, "db")
        self.world.held.add(way)
        self.world.after(self.random.uniform(1, 12), partial(self.world.held.discard, way))
        other.cut_power()
        run, away = other.run, self.random.uniform(25, 50)
        self.world.after(away, lambda: other.boot() if other.run == run else None)
        for _ in range(4):
            at = away + self.random.uniform(0, 30)
            self.world.after(at, partial(self._cut_for, 30.0, way, way[::-1]))

    def _cut_for(self, seconds: float, *ways: tuple[str, str]) -> None:
        fresh = [way for way in ways if way not in self.world.cut]
        self.world.cut.update(fresh)
        self.world.after(seconds, partial(self.world.cut.difference_update, fresh))

    def _database_away(self) -> None:
        names = [machine.name for machine in self.machines.values()]
        self._cut(*((name, "db") for name in names), *(("db", name) for name in names))

    def _restart_without_database(self) -> None:
        self._database_away()
        for machine in self.random.sample(list(self.machines.values()), 2):
            self.world.after(self.random.uniform(0, 30), partial(self._restart_agent, machine))

    def _restart_agent(self, machine: Machine) -> None:
        if machine.up:
            machine.kill_agent()
            run, seconds = machine.run, self.random.uniform(0.5, 3)
            self.world.after(seconds, lambda: machine.start_agent() if machine.run == run else None)

    def _step_clock(self) -> None:
        self.database.clock_step += self.random.choice((-3600.0, -30.0, 30.0, 3600.0))

    def _move(self) -> None:
        machine = self._machine()
        if machine.workers:
            session = self.random.choice(sorted(machine.workers))
            machine.move(session, self._machine().id)

    def _may_lose(self) -> bool:
        """Only while no machine is cut off or off: see the table of what a fleet survives."""
        machines = self.machines.values()
        return not self.world.cut and all(
            it.up and it.frozen_until < self.world.now for it in machines
        )

    def _lose_records(self) -> None:
        if self._may_lose():
            self.database.lose(self.random.uniform(0.5, 2.0))
            self.world.after(self.random.uniform(5, 60), self.database.accept)

    def _lose_move(self) -> None:
        """The database loses the move of a session to a machine that it is cut off from since; the
        loss is accepted, and the machine is cut off for long after that."""
        to, owner = self.random.sample(list(self.machines.values()), 2)
        sessions = sorted(owner.workers.keys() & owner.owned)
        if sessions:
            moved = self.random.choice(sessions)
            owner.move(moved, to.id)
            self.world.after(12.0, partial(self._lose_move_to, to, moved))

    def _lose_move_to(self, machine: Machine, moved: str) -> None:
        worker = machine.workers.get(moved)
        if worker is None or not worker.runs or not self._may_lose():
            return
        ways = ((machine.name, "db"), ("db", machine.name))
        self.world.cut.update(ways)
        self.world.after(60.0, partial(self.world.cut.difference_update, ways))
        self.database.lose(15.0)  # and a renewal of each other machine
        self.world.after(5.0, self.database.accept)


def play(seed: str, only: str = "") -> Outcome:
    """`only`: the name of the one fault that happens."""
    return Schedule(seed, only).play()
