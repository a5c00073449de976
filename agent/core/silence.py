"""Silent inbound: connected, acks arrive, and no message came for far longer than usual. The usual
rate is learned per hour of the week, so that a shop's quiet night is no alarm."""

from dataclasses import dataclass, replace

from agent.core.model import Health, Signal

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
    """When the last message came."""
    ack_wall: float = 0.0
    """When the last ack or receipt came: the connection works."""


def note_hour(inbound: Inbound, hour_wall: float, messages: int) -> Inbound:
    """Take in a whole hour, connected throughout, with so many messages."""
    at = hour_of_week(hour_wall)
    usual = inbound.rates[at]
    seen = messages / 3600.0
    first_week = inbound.watched < HOURS * 3600.0
    rate = seen if first_week else usual + NEWEST * (seen - usual)
    rates = (*inbound.rates[:at], rate, *inbound.rates[at + 1 :])
    return replace(inbound, rates=rates, watched=inbound.watched + 3600.0)


def hour_of_week(wall: float) -> int:
    return int(wall // 3600) % HOURS


def expected_messages(inbound: Inbound, since_wall: float, now_wall: float) -> float:
    """How many messages usually come between two moments, at most a week apart."""
    at, end, total = max(since_wall, now_wall - HOURS * 3600.0), now_wall, 0.0
    while at < end:
        until = min((at // 3600 + 1) * 3600, end)
        total += inbound.rates[hour_of_week(at)] * (until - at)
        at = until
    return total


def judge_silence(inbound: Inbound, connected_since_wall: float, now_wall: float) -> Signal | None:
    """A Signal when this instance's silence cannot be chance."""
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
    sentence = (
        f"no message for {silent / 60:.0f} min; its usual rate is {expected:.0f} in that time"
    )
    return Signal("silent_inbound", Health.DEGRADED, sentence)
