"""Single outages of a network, or of a backend, on a machine where nothing else goes wrong.

What an outage costs beyond its own length: until the last session is connected again, and the
logins that one session makes for it. Of many seeds the worst.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from scripts.simulation.agent import Agent
from scripts.simulation.faults import REMOTE, SOCKET, WEB, Span
from scripts.simulation.places import Place, Times
from scripts.simulation.session import Session, Supervising
from scripts.simulation.tally import Tally
from scripts.simulation.world import Machine

SECONDS = (10, 30, 120, 900)
SESSIONS = (1, 2, 100)
ENGINES = (SOCKET, WEB, REMOTE)
SEEDS = 10
BEGIN = 3600.0
"""After everything has started, and well before WhatsApp's own outages of the day."""
PLAYED = 3600.0
"""Seconds that are played from the outage's begin on."""


class QuietMachine(Machine):
    """Sessions of one engine and one outage; a backend's come back with nothing connected."""

    stuck_share = 0.0
    by_itself = 0.0

    def __init__(self, seed: str, engine: str, size: int, seconds: float) -> None:
        self.dice = random.Random(seed)
        self.tally = Tally()
        span = Span(BEGIN, BEGIN + seconds)
        remote = engine == REMOTE
        here, there = Times(() if remote else (span,)), Times((span,) if remote else ())
        self.here, self.backends = Place("", here, Times(())), [Place("b0", there, there)]
        place = self.backends[0] if remote else self.here
        state = "dropped" if remote else "off"
        self.sessions = [Session(number, engine, place, state) for number in range(size)]
        for session in self.sessions:
            session.reason = "connection_lost" if remote else ""
        self.supervising: Supervising
        self.logins_of: Counter[int] = Counter()
        self.lost_at: dict[int, float] = {}
        """When each session noticed; a silent connection can take longer than the outage."""
        self._queue: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = 0
        self._end = span.end
        self.later(span.begin, partial(self._network_gone, place))
        if remote:
            self.later(span.begin + self.dice.uniform(1, 10), self._notice(place, span))
            # Its worker's looks begin every three seconds.
            self.later(span.end + self.dice.uniform(0, 3.1), partial(self._is_back, place))

    def play_outage(self) -> None:
        self.supervising.boot(0.0)
        while self._queue and self._queue[0][0] < BEGIN + PLAYED:
            at, _, what = heapq.heappop(self._queue)
            what(at)

    def _drop(self, session: Session, reason: str, at: float, until: float | None = None) -> None:
        if at >= BEGIN:
            self.lost_at.setdefault(session.number, at)
        super()._drop(session, reason, at, until)

    def last_back(self) -> float:
        """Seconds from the outage's end, or from where the last noticed it, to the last return."""
        if any(one.state != "connected" for one in self.sessions):
            return float("inf")
        end = max([self._end, *self.lost_at.values()])
        return max(max(one.since for one in self.sessions) - end, 0.0)

    def _count_login(self, session: Session, at: float) -> None:
        super()._count_login(session, at)
        self.logins_of[session.number] += at >= BEGIN


@dataclass(frozen=True, slots=True)
class Cost:
    """The worst of all seeds."""

    engine: str
    seconds: float
    sessions: int
    last_back: float
    """Seconds beyond the outage until every session was connected again."""
    logins: int
    """The most of one session."""


def play_outage(engine: str, seconds: float, size: int, seeds: int = SEEDS) -> Cost:
    backs, logins = [], []
    for seed in range(seeds):
        machine = QuietMachine(f"{engine}/{seconds}/{size}/{seed}", engine, size, seconds)
        machine.supervising = Agent(machine)
        machine.play_outage()
        backs.append(machine.last_back())
        logins.append(max(machine.logins_of.values(), default=0))
    return Cost(engine, seconds, size, max(backs), max(logins))


def every_outage(seeds: int = SEEDS) -> Iterator[Cost]:
    for engine in ENGINES:
        for seconds in SECONDS:
            for size in SESSIONS:
                yield play_outage(engine, seconds, size, seeds)


def outage_rows(costs: list[Cost]) -> tuple[list[str], list[list[str]]]:
    head = ["outage of", *(f"{size} on {engine}" for engine in ENGINES for size in SESSIONS)]
    by = {(cost.engine, cost.seconds, cost.sessions): cost for cost in costs}
    rows = []
    for seconds in SECONDS:
        cells = [by[engine, seconds, size] for engine in ENGINES for size in SESSIONS]
        row = [f"{cell.last_back:.1f} s, {cell.logins}" for cell in cells]
        rows.append([f"{seconds} s", *row])
    return head, rows
