"""How long each kind of check took, counted since the agent's start."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.core.view import CHECKS, CheckTime


@dataclass(slots=True)
class CheckTimes:
    _found: dict[str, CheckTime] = field(default_factory=lambda: dict.fromkeys(CHECKS, CheckTime()))

    def note(self, check: str, seconds: float) -> None:
        before = self._found[check]
        self._found[check] = CheckTime(before.count + 1, before.seconds + seconds)

    def all(self) -> Mapping[str, CheckTime]:
        return dict(self._found)
