"""The [recovery] table, and bounds that nothing sets."""

from dataclasses import dataclass
from enum import StrEnum

from agent.core.setting import setting


class Unpair(StrEnum):
    NEVER = "never"
    LAST = "last"
    EARLY = "early"


@dataclass(frozen=True, slots=True)
class RecoveryPolicy:
    tries: int = setting(3, "tries of each step of a repair", low=1, high=20)
    first_delay: float = setting(
        2.0, "seconds between the first two tries of a step; doubles with each try", low=0.1
    )
    rounds: int = setting(
        3, "rounds through the steps of a repair before it may give up a pairing", low=1
    )
    round_pause: float = setting(1800.0, "seconds between two rounds of a repair", low=1)
    unpaired_pause: float = 30.0
    """Seconds between the first two rounds of a session without a pairing; doubles each time, up to
    round_pause."""
    unpair: Unpair = setting(
        Unpair.LAST,
        "when a repair may end a live pairing: never, after the last round, in the first round;"
        " a session that hangs loses its pairing only while another session of the same engine,"
        " server and proxy is connected",
        choices=tuple(Unpair),
    )
    settle: float = setting(
        45.0, "seconds for a step on a running worker to show its effect", low=0.1
    )
    settle_start: float = 5.0
    """Seconds for a step that started a worker to show its effect."""
    settle_keys: float = 120.0
    """Seconds without crypto errors after which keys count as healed."""
    suspect_settle: float = 300.0
    """Seconds for a session that came up unpaired without a logout to come back."""
    again: float = 21600.0
    """Seconds after which a repair that gave up starts again; 0 = never."""
    keys_again: float = 600.0
    """Seconds after which a repair of failing keys starts again: `round` of [crypto]."""
    start_limit: float = 1800.0
    """The longest that a start may take to show whether a step helped."""
    act_limit: float = 180.0
    """A step that has not reported by then counts as failed."""
