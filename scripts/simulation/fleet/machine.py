"""A simulated machine: an agent that decides with the core, its disk, and its workers."""

from collections.abc import Callable
from functools import partial

from agent.core.fleet.acceptance import Accepted
from agent.core.fleet.lease import Lease, extended, renewed
from agent.core.fleet.promises import (
    Promises,
    Takeover,
    after_boot,
    begin_takeover,
    give,
    settle,
)
from agent.core.fleet.settling import Settling
from agent.core.fleet.sightings import Sightings, look, rivals_after
from agent.core.fleet.takeover import Peer, Standing, refuse_takeover
from scripts.simulation.fleet.database import Answer, Database
from scripts.simulation.fleet.world import CLOSING, DRIFT, Worker, World

PATIENCE = 2.0
"""Seconds that an agent waits for the database before it asks its rivals."""
START = 1.5
"""Seconds from the order to start a session to its login."""


class Disk:
    """What a machine knows after a restart of its agent, and after a boot."""

    def __init__(self, boot: str) -> None:
        self.promises = Promises(boot)
        self.epoch = 0
        self.named: dict[int, frozenset[int]] = {}
        """The rivals that each renewal named, from the last answered one on."""
        self.asked = 0
        """Counts the renewals that were asked for."""
        self.generation = 0
        self.renewals = 0
        self.renewed_in = ""
        """The boot in which a renewal was answered last."""
        self.halted = False
        self.lost = False
        """Records were lost, and what it owns was not read since in settled ones."""
        self.accepted = Accepted()
        self.losses = 0
        self.got: dict[str, int] = {}
        """The sessions whose files are here, with the generation in which it heard of each."""


class Machine:
    def __init__(self, world: World, id: int, database: Database, peers: "dict[int, Machine]"):
        self.world, self.id, self.database, self.peers = world, id, database, peers
        self.name = f"m{id}"
        self.rate = 1 + world.random.uniform(-DRIFT, DRIFT)
        self.booted = world.now
        self.boots = 0
        self.disk = Disk("boot 0")
        self.workers: dict[str, Worker] = {}
        self.run = 0
        """Counts the agent's runs: what an earlier one waited for is dropped."""
        self.up = False
        self.frozen_until = 0.0
        self.start_agent()

    # Its clock and its processes.

    @property
    def clock(self) -> float:
        return (self.world.now - self.booted) * self.rate

    def true_time(self, clock: float) -> float:
        return self.booted + clock / self.rate

    def start_agent(self) -> None:
        self.run += 1
        self.up = True
        self.lease = Lease(0.0)
        self.sightings = Sightings()
        self.rivals = frozenset[int]().union(*self.disk.named.values())
        self.owned: frozenset[str] = frozenset()
        self.answered = 0
        """The newest renewal that was answered."""
        self.last: Answer | None = None
        self.settling, self.settled = Settling(), False
        self.handing: dict[str, int] = {}
        """Sessions that were handed over, with the number of renewals for which that holds."""
        boot = f"boot {self.boots}"
        self.disk.promises = after_boot(self.disk.promises, boot, self.clock, self.world.policy)
        self.unread = self.disk.lost
        if self.disk.renewed_in == boot:
            self._ask_rivals(self.clock)
        self._every(self.run)

    def kill_agent(self) -> None:
        """kill -9: its workers go on until their own deadlines."""
        self.run += 1
        self.up = False

    def cut_power(self) -> None:
        self.kill_agent()
        for worker in self.workers.values():
            worker.stop()
        self.workers = {}

    def boot(self) -> None:
        self.booted = self.world.now
        self.boots += 1
        self.start_agent()

    def crash_worker(self) -> None:
        for worker in list(self.workers.values())[:1]:
            worker.stop()

    def freeze(self, seconds: float) -> None:
        """SIGSTOP of the agent; its workers run on."""
        self.frozen_until = self.world.now + seconds

    def _do(self, run: int, do: Callable[[], None]) -> None:
        """Run a step of the agent's run, once it is not frozen; drop it when that run ended."""
        if run != self.run:
            return
        if self.world.now < self.frozen_until:
            self.world.after(self.frozen_until - self.world.now, lambda: self._do(run, do))
        else:
            do()

    # Its lease.

    def _every(self, run: int) -> None:
        def beat() -> None:
            self._renew()
            self._take_over()
            self.world.after(self.world.policy.renew_every, lambda: self._do(run, beat))

        self._do(run, beat)

    def _renew(self) -> None:
        disk, begun, run, rivals = self.disk, self.clock, self.run, self.rivals
        disk.asked += 1
        asked = disk.asked
        disk.named[asked] = rivals
        database, epoch, seen, count = self.database, disk.epoch, disk.generation, disk.renewals
        losses = disk.losses

        def there() -> None:
            answer = database.renew(self.id, epoch, rivals, seen, count, losses=losses, asked=asked)
            self.world.send(
                "db", self.name, lambda: self._do(run, lambda: self._hear(asked, begun, answer))
            )

        def late() -> None:
            if self.answered < asked:
                self._ask_rivals(self.clock)

        self.world.send(self.name, "db", there)
        self.world.after(PATIENCE, lambda: self._do(run, late))

    def _hear(self, asked: int, begun: float, answer: Answer) -> None:
        disk, mine = self.disk, answer.renewals[self.id]
        if asked <= self.answered:
            return  # a later answer was faster
        self.answered = asked
        disk.generation = max(disk.generation, answer.generation)
        disk.promises = settle(disk.promises, answer.epochs, answer.renewals)
        if not answer.halted:
            disk.losses = max(disk.losses, answer.losses)
        if not answer.accepted or answer.epochs[self.id] > disk.epoch:
            self._lose_all(answer.epochs[self.id])
        if not answer.accepted:
            return
        disk.renewals = max(disk.renewals, mine)
        disk.renewed_in = f"boot {self.boots}"
        disk.halted = answer.halted
        accepted = disk.accepted.heard(answer.accepted_loss, halted=answer.halted)
        disk.lost = disk.lost or accepted.follows(disk.accepted)
        disk.accepted = accepted
        self.settling = self.settling.heard(answer.server, self.clock)
        word = answer.settled and not disk.lost
        settled = self.settling.settled(word, self.clock, self.world.policy)
        self.settled = settled and not answer.halted
        disk.lost = answer.halted or (disk.lost and not self.settled)
        self.unread = answer.halted
        disk.named = {it: named for it, named in disk.named.items() if it >= asked}
        self.lease = renewed(self.lease, begun, self.world.policy)
        self.sightings = look(self.sightings, answer.renewals, self.clock, self.world.policy)
        self.rivals = rivals_after(
            self.rivals, answer.alive, self.sightings, self.clock, self.world.policy
        )
        self.last = answer
        self.handing = {it: number for it, number in self.handing.items() if mine <= number}
        owned = frozenset(it for it, owner in answer.owner.items() if owner == self.id)
        if not answer.halted:
            self._leave(owned - self.handing.keys())
            disk.got = {it: answer.changed.get(it, 0) for it in self.owned}
        elif not answer.told:
            told = partial(self.database.tell, self.id, disk.epoch, dict(disk.got))
            self.world.send(self.name, "db", told)
        self._extend_workers()

    def _lose_all(self, epoch: int) -> None:
        """Another machine took this one over while it was away."""
        self._leave(frozenset())
        self.disk.epoch = max(epoch, self.disk.epoch)
        self.lease = Lease(0.0)

    def _leave(self, owned: frozenset[str]) -> None:
        for session in self.workers.keys() - owned:
            self.workers.pop(session).stop()
        self.owned = owned

    def _ask_rivals(self, begun: float) -> None:
        run, promised = self.run, set[int]()
        rivals = frozenset[int]().union(*self.disk.named.values())

        def confirmed(peers: set[int]) -> None:
            promised.update(peers)
            self.lease = extended(self.lease, begun, rivals, promised, self.world.policy)
            self._extend_workers()

        confirmed(set())
        for peer in rivals:
            self._ask(peer, run, partial(confirmed, {peer}))

    def _ask(self, peer: int, run: int, confirmed: Callable[[], None]) -> None:
        other, epoch, accepted = self.peers[peer], self.disk.epoch, self.disk.accepted.loss

        def there() -> None:
            if other.up:
                other._do(other.run, answer)

        def answer() -> None:
            lost = other.disk.lost and not other.disk.halted
            if lost or other.disk.accepted.refuses(accepted):
                return
            given = give(other.disk.promises, self.id, epoch, other.clock, self.world.policy)
            if given is not None:
                other.disk.promises = given
                self.world.send(other.name, self.name, lambda: self._do(run, confirmed))

        self.world.send(self.name, other.name, there)

    # Its sessions.

    def _deadline(self) -> float:
        return self.true_time(self.lease.until) + CLOSING

    def _extend_workers(self) -> None:
        """And start sessions that do not run: a worker may crash while the database is away. An
        agent that has just begun knows of none: it only extends."""
        if self.unread and not self.disk.halted:
            return
        for worker in self.workers.values():
            worker.extend(self._deadline())
        if self.settled:
            for session in self.owned:
                self._start(session)

    def _start(self, session: str) -> None:
        worker = self.workers.get(session)
        if not self.lease.holds(self.clock) or (worker and worker.runs):
            return
        self.workers[session] = fresh = Worker(self.world, session, self.name)
        run = self.run

        def login() -> None:
            mine = self.workers.get(session) is fresh and session in self.owned
            if run == self.run and mine and self.lease.holds(self.clock):
                fresh.begin(self._deadline())

        self.world.after(START, lambda: self._do(run, login))

    def _take_over(self) -> None:
        last, disk = self.last, self.disk
        if last is None or not self.settled:
            return
        for id in self.sightings.machines.keys() - {self.id}:
            standing = Standing(self.id, self.lease, disk.promises, self.sightings)
            sessions = sum(owner == id for owner in last.owner.values())
            peer = Peer(id, last.epochs[id], last.rivals[id], sessions)
            if refuse_takeover(standing, peer, self.clock, self.world.policy) is None:
                takeover = Takeover(peer.epoch, last.renewals[id])
                disk.promises = begin_takeover(disk.promises, id, takeover)
                sent = partial(self.database.take_over, self.id, disk.epoch, id, takeover.renewals)
                self.world.send(self.name, "db", sent)

    def move(self, session: str, to: int) -> None:
        """A planned move: stop, then hand over."""
        worker = self.workers.get(session)
        if not (self.up and worker and worker.runs) or self.world.now < self.frozen_until:
            return
        self._leave(self.owned - {session})
        self.handing[session] = count = self.disk.renewals
        sent = partial(self.database.hand_over, self.id, self.disk.epoch, count, session, to)
        self.world.send(self.name, "db", sent)
