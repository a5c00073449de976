"""Who waits for which address, as in supervise/reach: one look for all who need it.

On the machine each engine needs one address; a backend is looked at by its own checks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from agent.core.model import InstanceId
from agent.core.network.reach import (
    NETWORK_CODES,
    UNREACHABLE,
    May,
    Reach,
    after_connection,
    after_failed_look,
    after_failure,
    after_good_look,
    ask_reach,
    begin_try,
    next_moment,
)
from agent.core.reconnect import ReconnectPolicy
from scripts.simulation.faults import SOCKET, WEB
from scripts.simulation.known import Known
from scripts.simulation.world import Machine

POLICY = ReconnectPolicy().reach
LOOK = (0.1, 3.0)
"""Seconds that a look takes: one that is answered, and one that is not."""
LOOKS_APART = 1.0


@dataclass(slots=True)
class Sight:
    """What is known of one engine's address."""

    reach: Reach = field(default_factory=Reach)
    waiting: dict[InstanceId, Known] = field(default_factory=dict)
    looking: bool = False
    looked_at: float = float("-inf")


class Reaches:
    def __init__(
        self,
        machine: Machine,
        look: Callable[[Known, float], None],
        changed: Callable[[list[Known], bool, float], None],
    ) -> None:
        """`changed` hears of an address that is away or back, and who waited for it."""
        self._machine = machine
        self._pass = look
        self._changed = changed
        self._all = {engine: Sight() for engine in (WEB, SOCKET)}

    def away(self, known: Known) -> bool:
        sight = self._of(known)
        return sight is not None and sight.reach.away

    def wait_reason(self, known: Known, at: float) -> str:
        sight = self._of(known)
        if sight is None or not sight.reach.away:
            return ""
        sight.waiting[known.instance.id] = known
        return "" if ask_reach(sight.reach, POLICY, at) is May.TRY else UNREACHABLE

    def back_at(self, known: Known) -> float | None:
        sight = self._of(known)
        return None if sight is None else sight.reach.back_at

    def ask(self, known: Known, at: float) -> float | None:
        """None: it may try now. A time: ask again then, or when it is woken."""
        if (sight := self._of(known)) is None:
            return None
        may = ask_reach(sight.reach, POLICY, at)
        if may is May.TRY:
            sight.reach = begin_try(sight.reach, at)
            sight.waiting.pop(known.instance.id, None)
            return None
        sight.waiting[known.instance.id] = known
        if may is May.LOOK:
            self._look(sight, at)
            return at + POLICY.look_timeout + 1.0
        self._look_again(sight, at)
        return max(min(next_moment(sight.reach, POLICY), at + 5.0), at + 0.05)

    def failed(self, known: Known, code: str, at: float) -> None:
        if (sight := self._of(known)) is None:
            return
        tried = known.record.attempts > 0
        sight.reach = after_failure(sight.reach, code, POLICY, at, tried=tried)
        if code in NETWORK_CODES and not sight.reach.away:
            sight.waiting[known.instance.id] = known
            if at - sight.looked_at > LOOKS_APART:
                self._look(sight, at)

    def succeeded(self, known: Known, at: float) -> None:
        if (sight := self._of(known)) is None:
            return
        sight.waiting.pop(known.instance.id, None)
        was_away = sight.reach.away
        sight.reach = after_connection(sight.reach, at)
        if was_away:
            self._is_back(sight, at)

    def _of(self, known: Known) -> Sight | None:
        return self._all.get(known.session.engine)

    def _look(self, sight: Sight, at: float) -> None:
        if sight.looking:
            return
        sight.looking, sight.looked_at = True, at
        found = self._machine.here.shows_itself(at)
        self._machine.later(at + LOOK[not found], partial(self._looked, sight, found))

    def _looked(self, sight: Sight, found: bool, at: float) -> None:
        sight.looking, was_away = False, sight.reach.away_since is not None
        if found:
            sight.reach = after_good_look(sight.reach, at)
            if was_away:
                self._is_back(sight, at)
            else:
                self._wake(sight, at)
                sight.waiting.clear()
            return
        jitter = self._machine.dice.random()
        sight.reach = after_failed_look(sight.reach, "no answer", POLICY, sight.looked_at, jitter)
        if not was_away:
            waiting = list(sight.waiting.values())
            self._wake(sight, at)
            self._changed(waiting, False, at)
        self._look_again(sight, at)

    def _look_again(self, sight: Sight, at: float) -> None:
        def look(now: float) -> None:
            waits = [
                one for one in sight.waiting.values() if one.session.state not in ("connected",)
            ]
            due = sight.reach.away_since is not None and now >= sight.reach.look_at
            if due and waits:
                self._look(sight, now)

        if sight.reach.away_since is not None and not sight.looking:
            self._machine.later(max(sight.reach.look_at, at), look)

    def _is_back(self, sight: Sight, at: float) -> None:
        waiting = list(sight.waiting.values())
        self._wake(sight, at)
        sight.waiting.clear()
        self._changed(waiting, True, at)

    def _wake(self, sight: Sight, at: float) -> None:
        for known in list(sight.waiting.values()):
            self._pass(known, at)
