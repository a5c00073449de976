"""A simulated machine: an agent that decides with the core, its disk, and its workers."""

from collections.abc import Callable
from functools import partial
from typing import Any

from agent.core.fleet.lease import Lease, extended, renewed
from agent.core.fleet.promises import may_promise, settle
from agent.core.fleet.settling import Settling
from agent.core.fleet.sightings import Sightings, look, rivals_after, vouched
from agent.core.fleet.takeover import Word
from scripts.simulation.fleet import disk as disks
from scripts.simulation.fleet.database import Answer, Database
from scripts.simulation.fleet.disk import Disk
from scripts.simulation.fleet.files import (
    GIVEN_UP,
    Content,
    change,
    is_newest,
    may_run,
    store,
    store_all,
)
from scripts.simulation.fleet.joining import Joining
from scripts.simulation.fleet.taking import ask_and_take_over
from scripts.simulation.fleet.world import CLOSING, DRIFT, Worker, World

PATIENCE = 2.0
"""Seconds that an agent waits for the database before it asks its rivals."""
START = 1.5
"""Seconds from the order to start a session to its login."""


def no_word() -> bool:
    """A refusal other than "no member" says nothing of this machine: its rivals are asked."""
    return True


def may_be_an_image() -> bool:
    """What was written long ago, or in another boot, is known again after a renewal only."""
    return True


class Machine:
    def __init__(
        self,
        world: World,
        id: int,
        database: Database,
        peers: "dict[int, Machine]",
        disk: Disk,
        *,
        copy_of: "Machine | None" = None,
        other_host: bool = False,
    ) -> None:
        self.world, self.id, self.database, self.peers = world, id, database, peers
        self.name = f"m{id}" if copy_of is None else f"copy of m{id}"
        self.rate = 1 + world.random.uniform(-DRIFT, DRIFT)
        self.booted = world.now
        self.boots = 100 if other_host else 0
        if copy_of is not None and not other_host:
            self.rate, self.booted, self.boots = copy_of.rate, copy_of.booted, copy_of.boots
        self.disk = disk
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

    @property
    def place(self) -> str:
        return f"boot {self.boots} of {self.name}"

    def true_time(self, clock: float) -> float:
        return self.booted + clock / self.rate

    def start_agent(self) -> None:
        self.run += 1
        self.up = True
        self.lease = Lease(0.0)
        self.sightings = Sightings()
        self.words: dict[int, Word] = {}
        """What machines said of their leases whose numbers stand still."""
        self.by_renewal = False
        self.rivals = frozenset[int]().union(*self.disk.named.values())
        self.owned: frozenset[str] = frozenset()
        self.answered = 0
        """The newest renewal that was answered."""
        self.last: Answer | None = None
        self.settling, self.settled = Settling(), False
        self.handing: dict[str, int] = {}
        """Sessions that were handed over, with the number of renewals for which that holds."""
        self.moving: dict[str, int] = {}
        """Sessions that stopped and are handed over when their exact copies are stored."""
        self.stored: dict[str, Content] = {}
        """What this run of the agent was told that it is stored."""
        self.sending: dict[str, float] = {}
        """The sessions of which a copy is on its way, since when."""
        self.refused = set[str]()
        """The sessions of which the database takes no copy."""
        self.joining = Joining()
        boot = f"boot {self.boots}"
        old = not 0 <= self.clock - self.disk.written < self.world.policy.ttl
        self.unheard = may_be_an_image() and (old or self.disk.written_in != boot)
        self.unread = self.disk.lost
        if self.disk.renewed_in == boot and not self.unheard:
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

    def restore(self, image: Disk, *, boots: bool) -> None:
        """Its disk is as it was; a container is in the same boot then."""
        self.cut_power()
        image.full = False
        self.disk = image
        if boots:
            self.boot()
        else:
            self.start_agent()

    def lead_to(self, database: Database) -> None:
        """The address of its database leads to another one."""
        self.database = database

    def crash_worker(self) -> None:
        for worker in list(self.workers.values())[:1]:
            worker.stop()

    def freeze(self, seconds: float) -> None:
        """SIGSTOP of the agent; its workers run on."""
        self.frozen_until = self.world.now + seconds

    def do(self, run: int, do: Callable[..., None], *given: Any) -> None:
        """Run a step of the agent's run, once it is not frozen; drop it when that run ended."""
        if run != self.run:
            return
        if self.world.now < self.frozen_until:
            self.world.after(self.frozen_until - self.world.now, lambda: self.do(run, do, *given))
        else:
            do(*given)

    # Its lease.

    def _every(self, run: int) -> None:
        def beat() -> None:
            if self.joining.joined or self.disk.full:
                self._renew()
                ask_and_take_over(self)
            else:
                self._join()
            change(self)
            store_all(self)
            self.world.after(self.world.policy.renew_every, lambda: self.do(run, beat))

        self.do(run, beat)

    def _join(self) -> None:
        """One that goes on in its boot asks its rivals while the database does not answer."""
        self.joining.ask(self)
        run, heard = self.run, self.joining.heard

        def late() -> None:
            resumes = self.disk.renewed_in == f"boot {self.boots}"
            if self.joining.heard == heard and resumes:
                self._ask_rivals(self.clock)

        self.world.after(PATIENCE, lambda: self.do(run, late))

    def _renew(self) -> None:
        disk, begun, run, rivals = self.disk, self.clock, self.run, self.rivals
        if disk.full and disks.must_be_kept():
            return
        disk.asked += 1
        disk.written, disk.written_in = self.clock, f"boot {self.boots}"
        asked = disk.asked
        disk.named[asked] = rivals
        database, epoch, seen, count = self.database, disk.epoch, disk.generation, disk.renewals
        losses, place = disk.losses, self.place

        def there() -> None:
            if database.refuses:
                self.world.send("db", self.name, lambda: self.do(run, refused))
                return
            answer = database.renew(
                self.id, epoch, rivals, seen, count, place=place, losses=losses, asked=asked
            )
            self.world.send("db", self.name, lambda: self.do(run, hear, answer))

        def hear(answer: Answer | None) -> None:
            if answer is not None:
                self._hear(asked, begun, answer)
            elif asked > self.answered:
                self.answered = asked
                self.joining.refused(self)

        def refused() -> None:
            if no_word():
                self._ask_rivals(self.clock)
            else:
                self.answered = max(self.answered, asked)

        def late() -> None:
            if self.answered < asked and not disk.full:
                self.stored = {}  # what it took before it went away is sent again
                self._ask_rivals(self.clock)

        self.world.send(self.name, "db", there)
        self.world.after(PATIENCE, lambda: self.do(run, late))

    def _hear(self, asked: int, begun: float, answer: Answer) -> None:
        disk, mine = self.disk, answer.renewals[self.id]
        if asked <= self.answered or disk.full:
            return  # a later answer was faster, or nothing may follow from this one
        self.answered, disk.asked = asked, max(disk.asked, answer.asked)
        disk.generation = max(disk.generation, answer.generation)
        disk.takeovers = settle(disk.takeovers, answer.epochs, answer.renewals)
        if not answer.halted:
            disk.losses = max(disk.losses, answer.losses)
        rejoined = self.joining.again and not answer.halted
        if rejoined or answer.epochs[self.id] > disk.epoch:
            self.joining.again = False
            self._lose_all(answer.epochs[self.id])
        if not answer.accepted:
            return
        disk.renewals = max(disk.renewals, mine)
        self.by_renewal = True
        disk.renewed_in = f"boot {self.boots}"
        if answer.halted != disk.halted:
            self.stored, self.refused = {}, set()
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
        self.lease, self.unheard = renewed(self.lease, begun, self.world.policy), False
        seen = self.sightings.machines
        moved = {it for it in seen if seen[it].renewals != answer.renewals.get(it)}
        self.words = {it: word for it, word in self.words.items() if it not in moved}
        self.sightings = look(self.sightings, answer.renewals, self.clock, self.world.policy)
        self.rivals = rivals_after(
            self.rivals, answer.alive, self.sightings, self.clock, self.world.policy
        )
        self.last = answer
        self.handing = {it: number for it, number in self.handing.items() if mine <= number}
        owned = frozenset(it for it, owner in answer.owner.items() if owner == self.id)
        if not answer.halted:
            self._leave(owned - self.handing.keys() - self.moving.keys())
            disk.files = {it: here for it, here in disk.files.items() if it in owned}
            disk.got = {
                it: (answer.changed.get(it, 0), epoch)
                for it in sorted(self.owned)
                if is_newest(
                    disk.files.get(it), epoch := answer.session_epochs[it], answer.copies[it]
                )
            }
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
        for session in sorted(self.workers.keys() - owned):
            self.workers.pop(session).stop()
        self.owned = owned

    def _ask_rivals(self, begun: float) -> None:
        run, promised = self.run, set[int]()
        rivals = frozenset[int]().union(*self.disk.named.values())

        def confirmed(peers: set[int]) -> None:
            promised.update(peers)
            self.lease = extended(self.lease, begun, rivals, promised, self.world.policy)
            self.by_renewal = self.by_renewal and not rivals <= promised
            self._extend_workers()

        confirmed(set())
        for peer in rivals:
            self._ask(peer, run, partial(confirmed, {peer}))

    def _ask(self, peer: int, run: int, confirmed: Callable[[], None]) -> None:
        other, epoch, accepted = self.peers[peer], self.disk.epoch, self.disk.accepted.loss

        def there() -> None:
            if other.up:
                other.do(other.run, answer)

        def answer() -> None:
            lost = other.disk.lost and not other.disk.halted
            taken = other.last is not None and other.last.epochs.get(self.id, 0) > epoch
            if lost or taken or other.unheard or other.disk.accepted.refuses(accepted):
                return
            if may_promise(other.disk.takeovers, self.id, epoch):
                other.sightings = vouched(other.sightings, {self.id}, other.clock)
                self.world.send(other.name, self.name, lambda: self.do(run, confirmed))

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
            for session in sorted(self.owned):
                self._start(session)

    def _start(self, session: str) -> None:
        worker = self.workers.get(session)
        if not self.lease.holds(self.clock) or (worker and worker.runs):
            return
        if not may_run(self, session):
            return
        self.workers[session] = fresh = Worker(self.world, session, self.name)
        run = self.run

        def login() -> None:
            mine = self.workers.get(session) is fresh and session in self.owned
            if run == self.run and mine and self.lease.holds(self.clock):
                self.database.logs_in(session, self.disk.files[session].content)
                fresh.begin(self._deadline())

        self.world.after(START, lambda: self.do(run, login))

    def move(self, session: str, to: int) -> None:
        """A planned move: stop, store the exact copy, then hand over."""
        worker = self.workers.get(session)
        if not (self.up and worker and worker.runs) or self.world.now < self.frozen_until:
            return
        self._leave(self.owned - {session})
        self.moving[session] = to
        self.sending.pop(session, None)
        store(self, session)
        run = self.run

        def stays() -> None:
            self.moving.pop(session, None)

        self.world.after(GIVEN_UP, lambda: self.do(run, stays))

    def stored_exactly(self, session: str) -> None:
        to = self.moving.pop(session, None)
        if to is None:
            return
        self.handing[session] = count = self.disk.renewals
        sent = partial(self.database.hand_over, self.id, self.disk.epoch, count, session, to)
        self.world.send(self.name, "db", sent)
