"""What is counted of one session. Callbacks and passes add to it; views and metrics show it."""

import time
from collections import Counter
from dataclasses import dataclass, field

from agent.core.figures.session_figures import COUNTS
from agent.core.findings.error_rate import ErrorRate, PerMinute
from agent.core.findings.response_time import RecentTimes


@dataclass(slots=True)
class Counters:
    """Counted since the agent's start, or since before it (periodic/carried)."""

    since_wall: float = field(default_factory=time.time)
    by_word: dict[str, Counter[str]] = field(
        default_factory=lambda: {row.name: Counter() for row in COUNTS}
    )
    """The counts of session_figures."""
    messages: Counter[str] = field(default_factory=Counter)
    per_minute: dict[str, PerMinute] = field(default_factory=dict)
    """By direction: in, out."""
    errors: Counter[str] = field(default_factory=Counter)
    error_rate: ErrorRate = field(default_factory=ErrorRate)
    repair_steps: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Steps by kind and result."""
    repair_seconds: float = 0.0
    probes: int = 0
    probe_seconds: float = 0.0
    recent_times: RecentTimes = field(default_factory=RecentTimes)
    """Of the answered probes."""
