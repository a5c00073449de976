"""What the agent has heard of a session: a claim is told again when its words are new."""

from dataclasses import dataclass

from agent.core.words import Claim
from agent.engines.base import Reporter
from agent.engines.evolution.claims import Live


@dataclass(slots=True)
class Told:
    reporter: Reporter
    live: Live | None = None
    """The session's state as the agent last heard it."""
    _reported: Claim | None = None
    _answered: Claim | None = None

    def answer(self, claim: Claim) -> Claim:
        """In the answer of a probe."""
        self._answered = claim
        return claim

    def report(self, claim: Claim, live: Live) -> None:
        self._reported, self.live = claim, live
        self.reporter.claim(claim)

    def is_new(self, claim: Claim) -> bool:
        """An endless loop says `connecting` many times a second."""
        # The agent has the newer of the last claim reported and the last one answered.
        earlier = (self._reported, self._answered)
        return any(one is None or _words(one) != _words(claim) for one in earlier)


def _words(claim: Claim) -> tuple[str, str, str]:
    return claim.status, claim.reason, claim.account
