"""Sessions that hang while their server connects them: how long until a code is shown.

Nothing else goes wrong. Each hangs at the same moment, and what cures it is a restart over there
or, where its keys are spoilt, only to be made again. Of many seeds the worst.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from agent.core.recovery.repair import RecoveryKind
from scripts.simulation.agent import Agent
from scripts.simulation.faults import REMOTE
from scripts.simulation.places import Place, Times
from scripts.simulation.session import Session, Supervising
from scripts.simulation.tally import Tally
from scripts.simulation.world import Machine

SIZES = ((1, 1), (1, 10), (10, 10))
"""How many hang, of how many."""
CURES = (RecoveryKind.RESTART, RecoveryKind.CLEANUP)
SEEDS = 5
BEGIN = 600.0
PLAYED = 4 * 3600.0


class StuckMachine(Machine):
    """One backend; its first `sick` sessions hang from BEGIN on until they are cured."""

    stuck_share = 0.0
    by_itself = 0.0

    def __init__(
        self, seed: str, *, sick: int, size: int, paired: bool, cure: RecoveryKind
    ) -> None:
        self.dice = random.Random(seed)
        self.tally = Tally()
        self.here, backend = Place("", Times(()), Times(())), Place("b0", Times(()), Times(()))
        self.backends = [backend]
        self.sessions = [Session(number, REMOTE, backend, paired=paired) for number in range(size)]
        self.supervising: Supervising
        self.cured_at: dict[int, float] = {}
        self.logins_of: Counter[int] = Counter()
        self._sick: set[int] = set()
        self._first = sick
        self._cure = cure
        self._queue: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = 0
        for session in self.sessions[:sick]:
            self.later(BEGIN + self.dice.uniform(0, 5), partial(self._hang, session))

    def play_to_the_end(self) -> None:
        self.supervising.boot(0.0)
        while self._queue and self._queue[0][0] < BEGIN + PLAYED:
            at, _, what = heapq.heappop(self._queue)
            what(at)

    def slowest(self) -> float:
        """Seconds until the last of them showed a code or was connected; inf = it did not."""
        if len(self.cured_at) < self._first:
            return float("inf")
        return max(self.cured_at.values()) - BEGIN

    def start(self, session: Session, at: float) -> bool:
        if self._cure is RecoveryKind.RESTART:
            self._sick.discard(session.number)
        return super().start(session, at)

    def connect(self, session: Session, at: float) -> bool:
        if session.number in self._sick:
            return True  # it is answered, and does nothing
        return super().connect(session, at)

    def begin_afresh(self, session: Session, at: float) -> bool:
        self._sick.discard(session.number)
        session.paired = False
        return self.start(session, at)

    def _hang(self, session: Session, at: float) -> None:
        self._sick.add(session.number)
        self._begin(session, at, cold=False)
        self._tell(session, at)

    def _begin(self, session: Session, at: float, *, cold: bool) -> None:
        if session.number not in self._sick:
            super()._begin(session, at, cold=cold)
            return
        self._enter(session, "starting", at)
        self._count_login(session, at)
        session.phase = "connecting"

    def _login(self, session: Session, turn: int, begun: float, crowded: bool, at: float) -> None:
        if session.turn != turn:
            return
        self._enter(session, "connected" if session.paired else "asks", at)
        if at > BEGIN and session.number < self._first:
            self.cured_at.setdefault(session.number, at)
        self._tell(session, at)

    def _count_login(self, session: Session, at: float) -> None:
        super()._count_login(session, at)
        self.logins_of[session.number] += at > BEGIN + 5


@dataclass(frozen=True, slots=True)
class Cure:
    """The worst of all seeds."""

    paired: bool
    sick: int
    size: int
    cure: RecoveryKind
    seconds: float
    """From the moment that it hung until the last showed a code or was connected; inf = never."""
    logins: int
    """The most of one session."""


def play_stuck(
    *, sick: int, size: int, paired: bool, cure: RecoveryKind, seeds: int = SEEDS
) -> Cure:
    times, logins = [], []
    for seed in range(seeds):
        machine = StuckMachine(
            f"{sick}/{size}/{paired}/{cure}/{seed}", sick=sick, size=size, paired=paired, cure=cure
        )
        machine.supervising = Agent(machine)
        machine.play_to_the_end()
        times.append(machine.slowest())
        logins.append(max(machine.logins_of.values(), default=0))
    return Cure(paired, sick, size, cure, max(times), max(logins))


def every_stuck(seeds: int = SEEDS) -> Iterator[Cure]:
    for paired in (False, True):
        for cure in CURES:
            for sick, size in SIZES:
                yield play_stuck(sick=sick, size=size, paired=paired, cure=cure, seeds=seeds)


def stuck_rows(cures: list[Cure]) -> tuple[list[str], list[list[str]]]:
    head = ["a session in `connecting`", *(f"{sick} of {size}" for sick, size in SIZES)]
    rows = []
    for paired in (False, True):
        for cure in CURES:
            found = [one for one in cures if (one.paired, one.cure) == (paired, cure)]
            who = "paired" if paired else "never paired"
            what = "restarted" if cure is RecoveryKind.RESTART else "made again"
            rows.append([f"{who}, cured when it is {what}", *map(_shown, found)])
    return head, rows


def _shown(one: Cure) -> str:
    if one.seconds == float("inf"):
        return "its pairing is kept"
    words = f"{one.seconds:.0f} s" if one.seconds < 600 else f"{one.seconds / 60:.0f} min"
    return f"{words}, {one.logins}"
