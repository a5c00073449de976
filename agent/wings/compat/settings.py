"""[compat]: the other programs whose clients this agent answers."""

from dataclasses import dataclass

from agent.config.config import Config
from agent.config.wing_tables import OwnTable, own_row
from agent.core.setting import setting


@dataclass(frozen=True, slots=True)
class CompatSettings:
    evolution: bool = setting(
        False,
        "true = answer clients of Evolution API at /message/…, /chat/… and /instance/…; they send a"
        " key of this agent as apikey",
    )
    answer: float = setting(
        15.0,
        "seconds that such a client waits for WhatsApp's id of a message; after them it gets the"
        " outbox's id",
        low=0.1,
        high=300,
    )


HEAD = """\
# Clients of another program's API may keep to it; what a webhook posts in its form, that one says.\
"""

TABLE = OwnTable(name="compat", plain=CompatSettings(), head=HEAD)
TABLES = (TABLE,)


def compat_of(config: Config) -> CompatSettings:
    row: CompatSettings = own_row(config, TABLE)
    return row
