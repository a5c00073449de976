"""What the agent does to a session: plans, the actions that they are made of, and how they went."""

from dataclasses import dataclass
from enum import StrEnum

from agent.core.recovery.proof import Proof


class ActionKind(StrEnum):
    """What the agent can do to a session; plans are made of these."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    CONNECT = "connect"
    DISCONNECT = "disconnect"
    SET_ASIDE = "set_aside"
    """Retire its files to the trash and lay out an empty folder."""
    RESTORE = "restore"
    """Put the newest good snapshot in the place of its files."""
    BACK_UP = "back_up"
    REGENERATE_KEYS = "regenerate_keys"
    LOGOUT = "logout"
    RENEW = "renew"
    """Its server gives its pairing up and begins it again."""


ENDS_PAIRING = frozenset(
    {ActionKind.SET_ASIDE, ActionKind.RESTORE, ActionKind.LOGOUT, ActionKind.RENEW}
)
"""A plan with one of these has a proof."""
_STARTS = frozenset({ActionKind.START, ActionKind.RESTART, ActionKind.RENEW})


@dataclass(frozen=True, slots=True)
class Plan:
    """What one pass does, in order, and why; the history has it under its name."""

    name: str
    actions: tuple[ActionKind, ...]
    reason: str
    repair: bool = False
    """It is a step of a repair."""
    ordered: bool = False
    """An operator ordered it: it waits for no turn and costs no attempt."""
    proof: Proof | None = None
    """Why the pairing, or the files that hold it, may come to an end (recovery/pairing.py)."""

    def __post_init__(self) -> None:
        ends = not ENDS_PAIRING.isdisjoint(self.actions)
        assert not ends or self.proof is not None, f"{self.name} has no proof"

    @property
    def starts(self) -> bool:
        """Whether it begins a worker, or a session on a server, again."""
        return not _STARTS.isdisjoint(self.actions)

    @property
    def tries(self) -> bool:
        """Whether it logs in."""
        return self.starts or ActionKind.CONNECT in self.actions


@dataclass(frozen=True, slots=True)
class Outcome:
    ok: bool
    seconds: float
    detail: str = ""
    refusal: str = ""
    """The code with which the session or its server refused it; "" = none of them did."""
    made: str = ""
    """The name of the backup, or of what lies in the trash."""
