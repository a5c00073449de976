"""When to try again: the delay between attempts, their number, and the circuit breaker."""

from dataclasses import dataclass

from agent.core.setting import setting


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """The [reconnect] table."""

    base: float = setting(2.0, "seconds before the first attempt, for an unknown reason", low=0.1)
    max: float = setting(300.0, "seconds that a delay may reach", low=0.1)
    factor: float = setting(1.5, "each delay is this many times the one before", low=1, high=10)
    jitter: float = setting(1.0, "random seconds, at most, added to each delay", low=0)
    attempts: int = setting(20, "attempts before an instance stays disconnected", low=1)
    breaker_failures: int = setting(5, "failures in a row that open the circuit", low=1)
    breaker_pause: float = setting(600.0, "seconds until an open circuit allows a trial", low=1)
