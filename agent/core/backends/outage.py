"""Whether a backend is away, or only blinked: its sessions wait for it after a while."""

from dataclasses import dataclass
from enum import StrEnum


class Turn(StrEnum):
    """What a look at a backend changed."""

    NONE = "none"
    BLINKED = "blinked"
    """It is up again before its sessions had to wait."""
    LEFT = "left"
    RETURNED = "returned"


@dataclass(frozen=True, slots=True)
class Outage:
    since: float | None = None
    """When it was first found away; None = it is up."""
    down: bool = False
    """It is away for longer than a blink: its sessions wait."""


def judge_outage(outage: Outage, *, up: bool, now: float, patience: float) -> tuple[Outage, Turn]:
    """`patience`: seconds that a backend may be away before its sessions wait."""
    if up:
        if outage.down:
            return Outage(), Turn.RETURNED
        return Outage(), Turn.NONE if outage.since is None else Turn.BLINKED
    since = now if outage.since is None else outage.since
    if not outage.down and now - since >= patience:
        return Outage(since, down=True), Turn.LEFT
    return Outage(since, outage.down), Turn.NONE
