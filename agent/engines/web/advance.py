"""The progress of a start. The same phase once more is no progress. Pure: `now` is handed in."""

from dataclasses import replace

from agent.core.phases import PASSING, PHASES
from agent.core.words import Claim, ConnectionStatus

LONGEST = 900.0
"""Seconds after which bytes of a start no longer count: a page may fetch something for ever."""
_HALF = 20_000_000
"""Bytes at which the progress shows one half. How many will come is not known to anything here."""
_MODULE = 2_000
"""A module that is defined counts as so many bytes."""


class Advance:
    """One start, over all the documents that it shows."""

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self._moved_at = self._document_at = begun
        self._amount = 0
        self._furthest: Claim | None = None

    def new_document(self, now: float) -> None:
        self._document_at = now

    def came(self, size: int, modules: int, now: float, *, complete: bool) -> None:
        """What of this document is there by now; less than an earlier one had is no progress."""
        amount = size + modules * _MODULE + complete
        if amount > self._amount and now - self.begun < LONGEST:
            self._amount, self._moved_at = amount, now

    def idle(self, now: float) -> float:
        return now - max(self._moved_at, self._document_at)

    def forward(self, claim: Claim) -> Claim:
        """The claim, never behind what this start showed before."""
        if claim.status not in PASSING:
            self._furthest = None
            return claim
        if claim.phase in ("loaded", "injected") and self._amount:
            share = self._amount / (self._amount + _HALF)
            claim = replace(claim, progress=round(share, 4))
        furthest = self._furthest
        if furthest is not None and _rank(claim) <= _rank(furthest):
            same = _rank(claim) == _rank(furthest)
            best = max(claim.progress or 0.0, furthest.progress or 0.0) or None
            claim = replace(
                claim,
                status=furthest.status,
                phase=furthest.phase,
                progress=best if same else furthest.progress,
            )
        self._furthest = claim
        return claim


def _rank(claim: Claim) -> tuple[int, bool]:
    """A session that lost its connection says no phase once its page is there again."""
    phase = PHASES.index(claim.phase) if claim.phase in PHASES else len(PHASES)
    return phase, claim.status is ConnectionStatus.LOADING
