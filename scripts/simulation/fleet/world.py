"""The fleet's world in virtual time: clocks, messages that get lost, and what may not happen."""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from agent.core.fleet.lease import LeasePolicy
from scripts.simulation.fleet.files import Content

CLOSING = 1.0
"""Seconds that a worker may still send after its deadline: it closes its connection."""
DRIFT = 0.005
"""How much faster or slower than true time a machine's clock runs, at most."""


class World:
    """What is true, whatever the machines believe."""

    def __init__(self, seed: str) -> None:
        self.random = Random(seed)
        self.policy = LeasePolicy()
        self.now = 0.0
        self.cut: set[tuple[str, str]] = set()
        """(from, to) pairs between which messages are lost."""
        self.held: set[tuple[str, str]] = set()
        """(from, to) pairs between which some messages arrive up to 90 s late: a proxy, a queue."""
        self.workers: dict[str, list[Worker]] = {}
        self.violations: list[str] = []
        self.pairings: dict[str, Content] = {}
        """The last one of each session that was ever acknowledged."""
        self.keeps_all = False
        """Lost records may cost no pairing: all machines that have one live when they are lost."""
        self.logins: Counter[str] = Counter()
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), do))

    def play(self, seconds: float) -> None:
        while self._events and self._events[0][0] <= seconds:
            self.now, _, do = heapq.heappop(self._events)
            do()
        self.now = seconds

    def send(self, sender: str, receiver: str, do: Callable[[], None]) -> None:
        """One message: lost when the way is cut as it leaves or arrives, else 1 ms to 3 s late, or
        90 s where messages are held."""
        if (sender, receiver) in self.cut:
            return
        late = 0.001 + self.random.random() ** 8 * 3.0
        if (sender, receiver) in self.held and self.random.random() < 0.3:
            # What holds it delivers it, whether or not the sender is cut off by then.
            self.after(self.random.uniform(3.0, 90.0), do)
            return

        def arrive() -> None:
            if (sender, receiver) not in self.cut:
                do()

        self.after(late, arrive)

    def may_send(self, worker: "Worker") -> None:
        """A worker began to run, or may run for longer: no other one of its session may."""
        for other in self.workers.get(worker.session, []):
            if other is not worker and other.ends > self.now and worker.ends > self.now:
                both = f"{worker.machine} and {other.machine}"
                self.violate(f"{worker.session} runs on {both}")

    def violate(self, what: str) -> None:
        self.violations.append(f"{self.now:.2f} s: {what}")


@dataclass(eq=False)
class Worker:
    """One run of a session; it may send until its deadline, agent or no agent."""

    world: World
    session: str
    machine: str
    ends: float = field(default=0.0)
    """True time until which it may send."""

    def begin(self, ends: float) -> None:
        self.ends = ends
        self.world.logins[self.session] += 1
        runs = self.world.workers.setdefault(self.session, [])
        runs[:] = [other for other in runs if other.ends > self.world.now]
        runs.append(self)
        self.world.may_send(self)

    def extend(self, ends: float) -> None:
        """Past its deadline it has ended: no extension brings it back."""
        if self.ends > self.world.now and ends > self.ends:
            self.ends = ends
            self.world.may_send(self)

    def stop(self) -> None:
        self.ends = min(self.ends, self.world.now)

    @property
    def runs(self) -> bool:
        return self.ends > self.world.now
