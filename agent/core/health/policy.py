"""The times by which health is judged."""

from dataclasses import dataclass, field, replace

from agent.core.phases import PhaseDeadlines
from agent.core.reconnect import ReconnectPolicy
from agent.core.setting import setting


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """The [health] table, with the tables that health is also judged by."""

    interval: float = setting(30.0, "seconds between two checks of an instance", low=1)
    deep: float = setting(
        120.0, "seconds between two deep checks of an engine, such as of its page", low=1
    )
    timeout: float = setting(10.0, "seconds that one check may take", low=0.1)
    zombie_pings: int = 3
    """Failed pings in a row after which a session counts as a zombie."""
    stuck: float = setting(
        30.0, "seconds in a passing state after which a session counts as stuck", low=1
    )
    proof_limit: float = 90.0
    """Seconds for which a proof of CONNECTED stays valid."""
    slow: float = setting(5.0, "seconds after which an answer counts as slow", low=0.01)
    error_rate: float = setting(
        0.10,
        "share of operations, or of HTTP requests, that fail before it is a trouble",
        low=0.001,
        high=1,
    )
    phases: PhaseDeadlines = field(default_factory=PhaseDeadlines)
    reconnect: ReconnectPolicy = field(default_factory=ReconnectPolicy)


def allow_for(policy: HealthPolicy, slack: float) -> HealthPolicy:
    """The policy for a session whose server takes so many seconds longer than a quick one."""
    return replace(policy, stuck=policy.stuck + slack) if slack else policy
