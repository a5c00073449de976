"""What the outbox may hold, and for how long."""

from agent.config import Config
from agent.config.wing_tables import own_row
from agent.wings.messages.settings import TABLES, MessagesSettings, PaceSettings

HOUR = 3600.0
KEPT_HOURS = 72.0
"""How long a message that has ended is shown."""
KEPT_MOST = 100_000


def limits_of(config: Config) -> MessagesSettings:
    """The settings in force."""
    settings: MessagesSettings = own_row(config, TABLES[0])
    return settings


def pace_of(config: Config) -> PaceSettings:
    """The pace in force."""
    settings: PaceSettings = own_row(config, TABLES[1])
    return settings
