"""What the outbox may hold, and for how long."""

from dataclasses import dataclass

from agent.config import Config

HOUR = 3600.0
KEPT_HOURS = 72.0
"""How long a message that has ended is shown."""
KEPT_MOST = 100_000


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    expires_hours: float = 24.0
    most: int = 10_000
    """Messages that may wait of one session."""
    megabytes: int = 1024
    """Of all that waits, with its files."""

    @property
    def bytes(self) -> int:
        return self.megabytes << 20


def limits_of(config: Config) -> OutboxLimits:
    rows = config.of_wings.get("messages", ())
    if not rows:
        return OutboxLimits()
    (table,) = rows
    return OutboxLimits(table.expires_hours, table.outbox_most, table.outbox_megabytes)
