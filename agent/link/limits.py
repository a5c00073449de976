"""The most that each end of the link takes from the other; the worker keeps below the agent's."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """What one worker may ask of the agent."""

    rate: float = 200.0
    """Messages per second in the long run, and how many more at once."""
    burst: float = 1000.0
    calls: int = 64
    """Calls on their way at the same time."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What a worker keeps and takes at most; its rate stays under what the agent refuses."""

    happenings: int = 500
    """Kept for an agent that is away or slow to read."""
    rate: float = 150.0
    """Claims and happenings per second in the long run, and how many more at once."""
    burst: float = 500.0
    calls: int = 64
    """Answered at the same time."""
    strangers: int = 8
    """Connections that have not greeted yet."""
    greeting: float = 5.0
    """Seconds until one of those is dropped."""


REFUSALS = (
    "unreachable",
    "peer",
    "silent",
    "gone",
    "version",
    "identity",
    "malformed",
    "oversized",
    "flood",
    "old_run",
)


@dataclass(slots=True)
class LinkStats:
    """Counted over all links that share it."""

    opened: int = 0
    messages: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """By rule: one of REFUSALS."""
