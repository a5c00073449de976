"""What is known of the session now: the last look at the page, the story, the proof, the claim.

No I/O and no clock: `now` is handed in, and who asks publishes what changed.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agent.core.words import SUSPECT, Claim, ConnectionStatus
from agent.engines.web.states import (
    PageFacts,
    Story,
    claim_of,
    left_for,
    next_story,
    parse_facts,
    parse_wall,
)

Status = ConnectionStatus

PROOF = 90.0
"""Seconds without a frame after which a connection is doubted."""
PATIENCE = 60.0
"""Seconds that a start may go on before somebody who asks anew is believed."""


class View:
    """Changed by what the page says; `claim` is what follows from it."""

    def __init__(self) -> None:
        self.claim = Claim(Status.INITIALIZING, phase="process")
        self.facts: PageFacts | None = None
        self.address = ""
        """Of the document that is shown."""
        self.silent = False
        """The last question to the page got no answer."""
        self._story = Story()
        self._frames = 0
        self._proof_at: float | None = None
        self._begun = 0.0

    def begin(self, now: float, phase: str) -> None:
        """Somebody starts it, or starts it anew: what ended it before is over."""
        self._begun = now
        self._story = replace(self._story, ended="", announced="", until_wall=None)
        self.facts = None
        self.claim = replace(claim_of(None, self._story), phase=phase)

    def revive(self, now: float) -> None:
        """The page is to be loaded anew; a connection that was there is being won back."""
        why = "zombie" if self.silent else ""
        self.begin(now, "loaded")
        if why and self.claim.status is Status.RECONNECTING:
            self.claim = replace(self.claim, reason=why)

    def interrupted(self, word: str) -> None:
        self._story = replace(self._story, passing=word)

    def ended(self, word: str) -> None:
        """It is known for sure, before the page says so."""
        self._story = replace(self._story, ended=word, was_connected=False)
        self._conclude()

    def failed(self, reason: str, raw: str) -> None:
        self.claim = Claim(Status.DISCONNECTED, reason, raw=raw[:200])

    def lost(self, raw: str) -> None:
        """The store of a paired session is gone: no page, so no code."""
        self.claim = Claim(Status.AUTH_FAILURE, SUSPECT, raw=raw[:200])

    def word(self, word: str, told: Mapping[str, Any], now: float) -> None:
        detail = told.get("d")
        self._story = next_story(
            self._story,
            word,
            detail[:64] if isinstance(detail, str) else "",
            parse_wall(told.get("until")),
            parse_facts(told.get("s")),
        )
        self.look(told.get("s"), now)

    def look(self, told: Any, now: float) -> None:
        """Take one snapshot of the page in."""
        facts = parse_facts(told)
        if facts is None:
            return
        self.facts = facts
        self._conclude()
        if facts.frames != self._frames:
            self._frames = facts.frames
            self._proof_at = now - (facts.frame_age or 0.0)
        elif not facts.sockets and self.claim.status is Status.CONNECTED:
            # Its socket is out of our sight (in a worker of its own): the page's word must do.
            self._proof_at = now

    def new_document(self, address: str) -> None:
        self._story = left_for(self._story, address)
        self.address, self.facts, self._frames = address, None, 0
        self._conclude()

    def claim_at(self, now: float) -> Claim:
        age = None if self._proof_at is None else max(0.0, now - self._proof_at)
        return replace(self.claim, proof_age=age)

    def needs_revival(self, now: float) -> bool:
        """Whether a connect, asked for while a browser runs, has to change anything."""
        if self.silent:
            return True
        match self.claim.status:
            case Status.QR_REQUIRED:
                return False
            case Status.CONNECTED:
                return self._proof_at is not None and now - self._proof_at > PROOF
            case Status.INITIALIZING | Status.LOADING:
                return now - self._begun > PATIENCE
        return True

    def _conclude(self) -> None:
        self.claim = claim_of(self.facts, self._story)
        if self.claim.status is Status.CONNECTED:
            self._story = replace(self._story, passing="", was_connected=True)
