"""A worker's messages that its agent has not read yet. Bounded; the newest claim stays, and what
does not fit is told as sums."""

from collections import deque
from collections.abc import Mapping
from typing import Any

from agent.core.findings.left_out import LeftOut
from agent.core.words import KEPT, Claim, Happening
from agent.link.messages import wire_claim


class Outbox:
    def __init__(self, run: str, most_happenings: int) -> None:
        self.dropped = 0
        """Happenings that no agent read in time, one by one."""
        self.newest: Claim | None = None
        """That the agent has not heard."""
        self._run = run
        self._most = most_happenings
        self._kept: Happening | None = None
        self._happenings: deque[Happening] = deque()
        self._left_out: LeftOut | None = None

    @property
    def waits(self) -> bool:
        return bool(self.newest or self._kept or self._left_out or self._happenings)

    def happened(self, happening: Happening) -> None:
        if happening.kind == KEPT:
            self._kept = happening
            return
        if len(self._happenings) >= self._most:
            self._left_out = self._left_out or LeftOut()
            self._left_out.add(self._happenings.popleft())
            self.dropped += 1
        self._happenings.append(happening)

    def pop(self) -> Mapping[str, Any]:
        """The next one to tell; only while something waits."""
        if (claim := self.newest) is not None:
            self.newest = None
            return {"t": "claim", "run": self._run, "claim": wire_claim(claim)}
        if (what := self._kept) is not None:
            self._kept = None
        elif self._left_out is not None:  # older than all that waits
            what, self._left_out = self._left_out.told(), None
        else:
            what = self._happenings.popleft()
        return {"t": "happened", "run": self._run, "kind": what.kind, "detail": what.detail}
