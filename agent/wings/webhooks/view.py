"""How a webhook is shown."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class WebhookView:
    name: str
    url: str
    """Without path and query: either may be the key."""
    state: str = "idle"
    """idle: everything is delivered; sending; failing: the last try failed."""
    circuit: str = "closed"
    cursor: int = 0
    """All events up to this one are settled."""
    waiting: int = 0
    oldest_wall: float | None = None
    """When the oldest that waits happened; None: none waits."""
    problem: str = ""
    """Why the last try failed; "" when it did not."""
    next_try_wall: float | None = None
    delivered_wall: float | None = None
    """The last delivery since the agent began."""
    dead: int = 0
    """Given up since the agent began; the journal has each of them."""
    messages: int | None = None
    """How many of those that wait are records of messages; None: it gets none."""


@dataclass(frozen=True, slots=True)
class WebhookFigures:
    results: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    oldest_wall: float | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """The target's answer to the test event that an operator sent."""

    delivered: bool
    status: int | None
    problem: str
    seconds: float
    said: str
    """The beginning of the answer's text."""
