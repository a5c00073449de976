"""What the agent is told of a session: its claim, again when the words are new."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from agent.core.words import Claim, ConnectionStatus
from agent.engines.base import Reporter
from agent.engines.evolution.claims import Live
from agent.engines.evolution.observer import Server
from agent.engines.evolution.proof import Opening
from agent.engines.evolution.renewal import Renewal
from agent.engines.evolution.view import SessionView


@dataclass(slots=True)
class Told:
    remote: str
    server: Server
    reporter: Reporter
    view: SessionView
    """The present one: a renewal begins another."""
    opening: Opening
    renewal: Renewal
    prove_soon: Callable[[], None]
    """Called for a session that says connected and has not proved it."""
    live: Live | None = None
    """The session's state as the agent last heard it."""
    _reported: Claim | None = None
    _answered: Claim | None = None

    def answer(self) -> Claim:
        """The claim in the answer of a probe."""
        self._answered = claim = self._claim()
        return claim

    def report(self, claim: Claim) -> None:
        self._reported, self.live = claim, self.view.live
        self.reporter.claim(claim)
        if claim.status is ConnectionStatus.CONNECTED and claim.proof_age is None:
            self.prove_soon()

    def report_change(self) -> None:
        """An endless loop says `connecting` many times a second."""
        claim = self._claim()
        # The agent has the newer of the last claim reported and the last one answered.
        earlier = (self._reported, self._answered)
        if any(one is None or _words(one) != _words(claim) for one in earlier):
            self.report(claim)

    def report_logout(self) -> None:
        """The server logged it out by our request."""
        self.view.note_end("logout")
        self._remember()
        self.report(Claim(ConnectionStatus.DISCONNECTED, "logout", account=self.view.account))

    def _claim(self) -> Claim:
        self._remember()
        view, api = self.view, self.server.api
        claim = replace(view.claim(), made_elsewhere=not self.renewal.is_ours)
        if self.renewal.owed and claim.reason == "remote_missing":
            return replace(claim, reason="renewal_unfinished")
        lacks_proof = not self.opening.owner_known or self.opening.lacks(view.integration)
        if claim.status is ConnectionStatus.CONNECTED and lacks_proof:
            claim = replace(claim, proof_age=None)
        if view.live in (Live.CONNECTING, Live.OPEN) and api.old:
            return replace(claim, useless=(*claim.useless, "restart"))
        return claim

    def _remember(self) -> None:
        if self.server.api.old:  # the list of 2.x tells it
            self.server.notes.put(self.remote, self.view.remembered)


def _words(claim: Claim) -> tuple[str, str, str]:
    return claim.status, claim.reason, claim.account
