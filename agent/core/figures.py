"""Counts of what happens, and what they show of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent.core.model import ConnectionStatus, Health, Signal
from agent.core.recovery.repair import Ending, Goal, Repair

# Counts of checks and repairs: one value per agent, added to and never reset.


@dataclass(slots=True)
class RepairStatistics:
    checked: int = 0
    check_seconds: float = 0.0
    repaired: int = 0
    cleaned: int = 0
    failed: int = 0
    repair_seconds: float = 0.0
    """Seconds of the repairs that healed: from the begin to the end of the step that helped."""
    asked: int = 0
    """Repairs that an operator asked for, or joined."""
    needed_person: int = 0
    """Repairs that ended with something only a person can do."""
    since_wall: float = 0.0
    """Unix time at which the first of them was counted; 0 = not known."""

    @property
    def mean_check_seconds(self) -> float | None:
        return self.check_seconds / self.checked if self.checked else None

    @property
    def mean_time_to_repair(self) -> float | None:
        healed = self.repaired + self.cleaned
        return self.repair_seconds / healed if healed else None

    @property
    def success_rate(self) -> float | None:
        healed = self.repaired + self.cleaned
        return healed / (healed + self.failed) if healed + self.failed else None

    def note(self, repair: Repair) -> None:
        """Count a repair that ended; without a step, or no longer wanted, it repaired nothing."""
        if repair.goal is not Goal.HEAL:
            self.asked += 1
        match repair.ending:
            case Ending.RECOVERED:
                self.repaired += 1
                self.repair_seconds += repair.seconds
            case Ending.CLEANED:
                self.cleaned += 1
                self.repair_seconds += repair.seconds
            case Ending.NEEDS_PERSON:
                self.needed_person += 1
                self.failed += 1
            case Ending.GAVE_UP:
                self.failed += 1


COUNTS: Mapping[str, tuple[str, ...]] = {
    "reconnects": (),
    "restarts": ("watchdog", "oom", "crash", "agent", "operator"),
    "key_regenerations": ("done", "failed"),
    "cleanups": tuple(goal.value for goal in Goal),
}
"""The counts of a session (`Counters.by_word`), each with the words that stand at zero from the
start: connections regained by the reason of the loss, restarts of the worker by cause, new keys
with contacts, sessions retired for a new QR code by the goal of the repair."""


# How long a session has been in each status, by a clock that never jumps: a counter that shrank
# with the wall clock would look to Prometheus like one that began at 0.


@dataclass(frozen=True, slots=True)
class StatusTime:
    """`spent` has the seconds of each status until `entered`; since then it is `status`."""

    status: ConnectionStatus = ConnectionStatus.DISCONNECTED
    entered: float = 0.0
    """Boot time at which `status` was entered."""
    spent: Mapping[ConnectionStatus, float] = field(default_factory=dict)

    def enter(self, status: ConnectionStatus, now: float) -> "StatusTime":
        if status is self.status:
            return self
        return StatusTime(status, now, self.totals(now))

    def totals(self, now: float) -> dict[ConnectionStatus, float]:
        since = max(now - self.entered, 0.0)
        return {**self.spent, self.status: self.spent.get(self.status, 0.0) + since}


MINUTE = 60.0
_STRETCH = 10.0


@dataclass(slots=True)
class PerMinute:
    stretches: tuple[tuple[float, int], ...] = ()
    """Boot time of the begin of each of the last seven stretches, and the number in it."""

    def note(self, now: float) -> None:
        begun, past, count = now - now % _STRETCH, self.stretches, 1
        if past and past[-1][0] == begun:
            past, count = past[:-1], past[-1][1] + 1
        self.stretches = (*past[-6:], (begun, count))

    def count(self, now: float) -> int:
        """The sum of the last minute, by whole stretches. One in the future comes from a clock that
        jumped."""
        return sum(count for at, count in self.stretches if now - MINUTE < at <= now)


@dataclass(frozen=True, slots=True)
class ErrorRate:
    """The share of operations that failed in the last window or two, from counters that only
    grow: when a window began, and the counts of errors and of good operations then."""

    before: tuple[float, int, int] = (0.0, 0, 0)
    last: tuple[float, int, int] = (0.0, 0, 0)

    def note(self, now: float, errors: int, done: int, window: float) -> "ErrorRate":
        over = not 0 <= now - self.last[0] < window
        return ErrorRate(self.last, (now, errors, done)) if over else self

    def judge(self, errors: int, done: int, limit: float, least: int) -> Signal | None:
        """Judge a rate; None below the limit, or if fewer than `least` operations prove nothing."""
        failed, good = errors - self.before[1], done - self.before[2]
        if failed <= 0 or failed + good < least or failed / (failed + good) <= limit:
            return None
        words = f"{failed} of its last {failed + good} operations failed"
        return Signal("error_rate", Health.DEGRADED, words)


# Silent inbound: connected, acks arrive, and no message came for far longer than usual. The usual
# rate is learned per hour of the week, so that a shop's quiet night is no alarm.


HOURS = 168
LEAST = 1800.0
"""Seconds; a shorter silence is always normal."""
EXPECTED = 20.0
"""Messages that the usual rate must predict for a silence to be reported."""
LEARNED = 86400.0
"""Seconds that the agent observes an instance before it uses its usual rate."""
NEWEST = 0.25
"""Weight of the newest hour in the usual rate of its hour of the week."""


@dataclass(frozen=True, slots=True)
class Inbound:
    """The incoming messages of one instance: usual rates and last times."""

    rates: tuple[float, ...] = (0.0,) * HOURS
    """Messages per second, usual for each hour of the week."""
    watched: float = 0.0
    """Seconds that went into `rates`."""
    last_wall: float = 0.0
    """Unix time of the last message."""
    ack_wall: float = 0.0
    """Unix time of the last ack or receipt, which shows that the connection works."""


def note_hour(inbound: Inbound, hour_wall: float, messages: int) -> Inbound:
    """Take in a whole hour, connected throughout, with this number of messages."""
    at = hour_of_week(hour_wall)
    usual = inbound.rates[at]
    seen = messages / 3600.0
    rate = seen if inbound.watched < HOURS * 3600.0 else usual + NEWEST * (seen - usual)
    rates = (*inbound.rates[:at], rate, *inbound.rates[at + 1 :])
    return replace(inbound, rates=rates, watched=inbound.watched + 3600.0)


def hour_of_week(wall: float) -> int:
    return int(wall // 3600) % HOURS


def expected_messages(inbound: Inbound, since_wall: float, now_wall: float) -> float:
    """Return how many messages usually come between two moments, at most a week apart."""
    at, end, total = max(since_wall, now_wall - HOURS * 3600.0), now_wall, 0.0
    while at < end:
        until = min((at // 3600 + 1) * 3600, end)
        total += inbound.rates[hour_of_week(at)] * (until - at)
        at = until
    return total


def judge_silence(inbound: Inbound, connected_since_wall: float, now_wall: float) -> Signal | None:
    """Return a Signal if this instance's silence cannot be chance."""
    since = max(inbound.last_wall, connected_since_wall)
    silent = now_wall - since
    if inbound.watched < LEARNED or silent < LEAST:
        return None
    if inbound.ack_wall <= since:
        # Not even acks arrive: a dead connection, which the proof's age and pings show better.
        return None
    expected = expected_messages(inbound, since, now_wall)
    if expected < EXPECTED:
        return None
    usual = f"its usual rate is {expected:.0f} in that time"
    words = f"no message for {silent / 60:.0f} min; {usual}"
    return Signal("silent_inbound", Health.DEGRADED, words)
