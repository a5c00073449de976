"""A worker never starts a paired session over: no code, no new store.

An empty store under a pairing is a lost one; an operator could scan a code shown in its place
before the loss is known. The agent decides what happens to it.
"""

from dataclasses import replace

from agent.core.words import SUSPECT, UNPAIRING, Claim, ConnectionStatus

Status = ConnectionStatus


class Pairing:
    """Whether one session is paired, by its record and its engine's claims."""

    __slots__ = ("_paired", "suspect")

    def __init__(self, paired: bool) -> None:
        self._paired = paired
        self.suspect = False
        """It is unpaired now without a logout: its code must not be scanned."""

    def judge(self, claim: Claim) -> Claim:
        """The claim for the agent: a code where a pairing should be becomes AUTH_FAILURE."""
        if claim.reason in UNPAIRING:
            self._paired = False
        elif claim.paired:
            self._paired = True
        self.suspect = self._paired and claim.status is Status.QR_REQUIRED
        if not self.suspect:
            return claim
        return replace(claim, status=Status.AUTH_FAILURE, reason=SUSPECT, phase="")
