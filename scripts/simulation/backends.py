"""Whom backends hold up, as in supervise/backends: a blink is no outage, all come back in turn.

Each has a circuit of the core's: failed looks and failed calls open it, a good look closes it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from agent.core.backends.outage import Outage, Turn, judge_outage
from agent.core.breaker import Breaker
from agent.core.model import InstanceId
from agent.core.reconnect import ReconnectPolicy
from scripts.simulation.known import Known
from scripts.simulation.places import Place
from scripts.simulation.world import Machine

LOOK = 10.0
"""Seconds between two looks at a server."""
PATIENCE = 10.0
"""Seconds that one may be away before its sessions are held: [backends] patience."""
FRESH = 1.0
"""Seconds for which a good look lets its sessions try, as in supervise/backends."""
ANSWER = (3.0, 0.1)
"""Seconds that a look takes: one that is not answered, and one that is."""
BACK_RATE = 50.0
"""Sessions looked at per second when it is back: [backends] back_rate."""
CIRCUIT = ReconnectPolicy().breaker


@dataclass(slots=True)
class Sight:
    """What is known of one backend."""

    members: list[Known]
    outage: Outage = field(default_factory=Outage)
    breaker: Breaker = field(default_factory=Breaker)
    away: set[InstanceId] = field(default_factory=set)
    """Sessions that were not looked at since it came back."""
    well_at: float = float("-inf")
    """When a look was good."""
    asking: dict[InstanceId, Known] = field(default_factory=dict)
    """Sessions that want to try, and wait for a look; empty while there is none under way."""


class Backends:
    def __init__(
        self, machine: Machine, every: Iterable[Known], look: Callable[[Known, float], None]
    ) -> None:
        self._machine = machine
        self._look = look
        self._all = {backend.name: Sight([]) for backend in machine.backends}
        for known in every:
            if known.instance.backend:
                self._all[known.instance.backend].members.append(known)

    def gone(self, backend: Place, at: float) -> None:
        sight = self._all[backend.name]
        if sight.outage.since is not None:
            return  # a call found it away before the look did
        sight.outage, _ = judge_outage(sight.outage, up=False, now=at, patience=PATIENCE)
        for number in range(CIRCUIT.failures):
            self._machine.later(at + number * LOOK, partial(self._look_in_vain, sight, at))

        def believe(now: float) -> None:
            if sight.outage.since != at:
                return
            sight.outage, turn = judge_outage(sight.outage, up=False, now=now, patience=PATIENCE)
            if turn is Turn.LEFT:
                sight.away = {known.instance.id for known in sight.members}
                for known in sight.members:
                    self._look(known, now)

        self._machine.later(at + PATIENCE, believe)

    def back(self, backend: Place, at: float) -> None:
        sight = self._all[backend.name]
        sight.outage, turn = judge_outage(sight.outage, up=True, now=at, patience=PATIENCE)
        sight.breaker = sight.breaker.after_success()
        if turn is not Turn.RETURNED:
            for known in sight.members:
                self._look(known, at)
            return
        self._machine.dice.shuffle(sight.members)
        for number, known in enumerate(sight.members):
            self._machine.later(at + number / BACK_RATE, partial(self._bring_back, sight, known))

    def ask(self, known: Known, at: float) -> float | None:
        """None: its server answered a moment ago. A time: ask again then, or when it is woken."""
        sight = self._all.get(known.instance.backend)
        if sight is None or at - sight.well_at <= FRESH:
            return None
        if not sight.asking:
            answers = known.session.place.can_be_asked(at)
            done = partial(self._looked, sight, known.session.place, answers)
            self._machine.later(at + ANSWER[answers], done)
        sight.asking[known.instance.id] = known
        return at + 5.0

    def _looked(self, sight: Sight, place: Place, answered: bool, at: float) -> None:
        asking, sight.asking = list(sight.asking.values()), {}
        if not answered:
            if not place.can_be_asked(at):
                self.gone(place, at)
            return
        sight.well_at = at
        for known in asking:
            self._look(known, at)

    def _look_in_vain(self, sight: Sight, since: float, at: float) -> None:
        if sight.outage.since == since:
            sight.breaker = sight.breaker.after_failure(at, CIRCUIT)

    def called_in_vain(self, known: Known, at: float) -> None:
        sight = self._all[known.instance.backend]
        sight.breaker = sight.breaker.after_failure(at, CIRCUIT)
        # As in production a call that gets nowhere sheds doubt on its server, which is looked at.
        self.gone(known.session.place, at)

    def _bring_back(self, sight: Sight, known: Known, at: float) -> None:
        if not sight.outage.down:
            sight.away.discard(known.instance.id)
            known.at_once = True
            self._look(known, at)

    def say_nothing(self, known: Known) -> bool:
        """It does not answer, so it says nothing new; soon it counts as down, or as well again."""
        sight = self._all.get(known.instance.backend)
        return sight is not None and sight.outage.since is not None and not sight.outage.down

    def wait_reason(self, known: Known, at: float) -> str:
        sight = self._all.get(known.instance.backend)
        if sight is None:
            return ""
        if sight.outage.down or known.instance.id in sight.away:
            return "backend_down"
        return "" if sight.breaker.may_try(at, CIRCUIT) else "backend_circuit"
