"""How fast a session sends, and to how many people it writes first in a day. Pure: it reads no
clock. Whoever restarts the agent, sets the clock or kills a worker gets no message sent earlier."""

from collections.abc import Iterable
from dataclasses import dataclass

from agent.wings.messages.settings import PaceSettings

DAY = 86_400.0
MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time by two clocks: the machine's own, which never jumps and begins anew at each
    boot, and the wall's."""

    boot: str
    """Which boot of the machine it was."""
    at: float
    """Seconds since that boot."""
    wall: float

    def age(self, now: "Moment") -> float:
        """Seconds since then; by the wall's clock only across a boot."""
        return max(now.at - self.at if self.boot == now.boot else now.wall - self.wall, 0.0)


@dataclass(frozen=True, slots=True)
class Used:
    """The last message of a session, and the pause that was drawn for the one after it."""

    moment: Moment
    pause: float

    def left(self, now: Moment) -> float:
        """Seconds until the next one may go."""
        return max(self.pause - self.moment.age(now), 0.0)


def pause_of(rules: PaceSettings, paired_for: float) -> float:
    """Seconds between two messages at least; 0 = none. In the days after a pairing, `paired_for`
    seconds ago, it shrinks evenly to the usual one."""
    usual = MINUTE / rules.per_minute if rules.per_minute else 0.0
    young = rules.young_days * DAY
    if not young or paired_for >= young:
        return usual
    first, share = MINUTE / rules.young_per_minute, max(paired_for, 0.0) / young
    return max(usual, first * (1 - share) + usual * share)


def use(rules: PaceSettings, paired_for: float, now: Moment, jitter01: float) -> Used:
    """A message goes now. Chance makes the pause longer only: no minute has more than its share."""
    pause = pause_of(rules, paired_for)
    return Used(now, pause * (1 + rules.jitter * jitter01))


def first_in(rules: PaceSettings, firsts: Iterable[Moment], now: Moment) -> float:
    """Seconds until the session may write to a new person; `firsts`: when it did so before."""
    if not rules.new_people:
        return 0.0
    ages = sorted(age for age in (moment.age(now) for moment in firsts) if age < DAY)
    if len(ages) < rules.new_people:
        return 0.0
    return DAY - ages[rules.new_people - 1]


def settle(moment: Moment, now: Moment) -> Moment:
    """A moment of another boot that the wall's clock, set back since, has not reached: it is now
    that it counts from, or it would be in the future for as long as the clock went back."""
    return now if moment.boot != now.boot and moment.wall > now.wall else moment
