"""A session that is known to be paired is never begun anew by its worker: no code, no new store.

An empty store under a pairing is lost, and a code shown in its place would be scanned by somebody
before anybody knew. What becomes of it is the agent's to decide.
"""

from dataclasses import replace

from agent.core.words import SUSPECT, UNPAIRING, Claim, ConnectionStatus

Status = ConnectionStatus


class Pairing:
    """What is known of one session's pairing, while its engine claims this and that."""

    __slots__ = ("_paired", "suspect")

    def __init__(self, paired: bool) -> None:
        self._paired = paired
        self.suspect = False
        """It is unpaired now, and nobody saw a logout: its code is not to be scanned."""

    def judge(self, claim: Claim) -> Claim:
        """The claim as it may be told: a code where a pairing should be is none."""
        if claim.reason in UNPAIRING:
            self._paired = False
        elif claim.paired:
            self._paired = True
        self.suspect = self._paired and claim.status is Status.QR_REQUIRED
        if not self.suspect:
            return claim
        return replace(claim, status=Status.AUTH_FAILURE, reason=SUSPECT, phase="")
