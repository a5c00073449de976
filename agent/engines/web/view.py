"""The present knowledge of the session: the last look at the page, story, proof and claim. No I/O
and no clock: `now` is an argument, and the caller publishes what changed."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agent.core.phases import PASSING, PHASES
from agent.core.reasons import reason_of
from agent.core.words import PASSKEY_REQUIRED, SUSPECT, Claim, ConnectionStatus
from agent.engines.web.document import Document
from agent.engines.web.states import (
    PageFacts,
    Story,
    claim_of,
    left_for,
    next_story,
    parse_facts,
    parse_wall,
    without_pairing,
)

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


Status = ConnectionStatus

PROOF = 90.0
"""Seconds without a frame after which a connection is doubted."""
PATIENCE = 60.0
"""Seconds that a start may go on before a second connect interrupts it."""


class SessionView:
    """Changed by what the page says; `claim` is what follows from it."""

    def __init__(self, *, pairing_safe: bool = False) -> None:
        self.claim = Claim(Status.INITIALIZING, phase="process")
        self.facts: PageFacts | None = None
        self.address = ""
        """Of the document that is shown."""
        self.silent = False
        """The last question to the page got no answer."""
        self.pairing_safe = pairing_safe
        """Whether the pairing that the page shows is known to be on the disk."""
        self._story = Story()
        self._document = Document()
        self._advance = Advance(0.0)
        self._frames = 0
        self._proof_at: float | None = None

    def begin(self, now: float, phase: str) -> None:
        """A start begins, the first one or another: what ended the last one is over."""
        self._advance = Advance(now)
        self._story = replace(self._story, ended="", announced="", until_wall=None, passkey=False)
        self._document = Document()
        self.facts = None
        self.claim = self._advance.forward(replace(claim_of(None, self._story), phase=phase))

    def revive(self, now: float) -> None:
        """The page is about to be loaded again; a connection that was there is to be won back."""
        why = "zombie" if self.silent else ""
        self.begin(now, "loaded")
        if why and self.claim.status is Status.RECONNECTING:
            self.claim = replace(self.claim, reason=why)

    def interrupted(self, word: str) -> None:
        self._story = replace(self._story, passing=word)

    def ended(self, word: str) -> None:
        """The end is known for sure, before the page says so."""
        self._story = replace(self._story, ended=word, was_connected=False)
        self._conclude()

    @property
    def has_ended(self) -> bool:
        """WhatsApp ended the session; the claim stays until the agent connects it again."""
        return bool(self._story.ended)

    def pairing_is_safe(self) -> None:
        """The pairing is on the disk: it may be published."""
        self.pairing_safe = True
        self._conclude()

    @property
    def pairing_to_save(self) -> bool:
        """The page shows a pairing that a killed browser may still lose."""
        return not self.pairing_safe and self.facts is not None and self.facts.auth is True

    def failed(self, reason: str, raw: str) -> None:
        self.claim = Claim(Status.DISCONNECTED, reason, raw=raw[:200])

    def lost(self, raw: str) -> None:
        """The store of a paired session is gone: no page, so no code."""
        self.claim = Claim(Status.AUTH_FAILURE, SUSPECT, raw=raw[:200])

    def word(self, word: str, raw: Mapping[str, Any], now: float) -> None:
        detail = raw.get("d")
        self._story = next_story(
            self._story,
            word,
            detail[:64] if isinstance(detail, str) else "",
            parse_wall(raw.get("until")),
            parse_facts(raw.get("s")),
        )
        self.look(raw.get("s"), now)

    def look(self, raw: Any, now: float) -> None:
        """Take one snapshot of the page in."""
        facts = parse_facts(raw)
        if facts is None:
            return
        self.facts = replace(facts, idle=self.idle(now))
        self._conclude()
        if facts.frames != self._frames:
            self._frames = facts.frames
            self._proof_at = now - (facts.frame_age or 0.0)
        elif not facts.sockets and self.claim.status is Status.CONNECTED:
            # Its socket is out of our sight (in a worker of its own): the page's word must do.
            self._proof_at = now

    def loaded(self, size: int, document: Document, now: float) -> None:
        """Take in how far the document is: bytes that came, modules that it defined."""
        self._document = document
        if self.facts is None or not self.facts.ready:
            self._advance.came(size, document.modules, now, complete=document.complete)

    def idle(self, now: float) -> float:
        """Seconds since the loading of this document last moved on."""
        return self._advance.idle(now)

    @property
    def is_loading(self) -> bool:
        """The page is not ready yet, so far as it can still get there."""
        starting = self.claim.status not in (Status.DISCONNECTED, Status.AUTH_FAILURE)
        return starting and (self.facts is None or not self.facts.ready)

    def new_document(self, address: str, now: float) -> None:
        self._story = left_for(self._story, address)
        self.address, self.facts, self._frames = address, None, 0
        self._document = Document()
        self._advance.new_document(now)
        self._conclude()

    def claim_at(self, now: float) -> Claim:
        age = None if self._proof_at is None else max(0.0, now - self._proof_at)
        return replace(self.claim, proof_age=age)

    @property
    def lacks_code(self) -> bool:
        """WhatsApp asked for a passkey and shows no code for another try."""
        shown = self.facts is not None and self.facts.qr is not None
        return self.claim.reason == PASSKEY_REQUIRED and not shown

    def needs_revival(self, now: float) -> bool:
        """Whether a connect, asked for while a browser runs, has to change anything."""
        if self.silent:
            return True
        match self.claim.status:
            case Status.QR_REQUIRED:
                return self.lacks_code
            case Status.CONNECTED:
                return self._proof_at is not None and now - self._proof_at > PROOF
            case Status.INITIALIZING | Status.LOADING:
                return now - self._advance.begun > PATIENCE and self.idle(now) > PATIENCE / 2
        return True

    def _conclude(self) -> None:
        claim = claim_of(self.facts, self._story)
        if claim.status is Status.CONNECTED:
            self._story = replace(self._story, passing="", was_connected=True)
        if reason_of(claim.reason).unpairs and not claim.paired:
            self.pairing_safe = False
        if claim.reason == "injection_failed":
            failure = f": {self.facts.failure}" if self.facts and self.facts.failure else ""
            claim = replace(claim, raw=f"{self._document.shown}{failure}"[:200])
        if claim.paired and not self.pairing_safe:
            claim = without_pairing(claim)
        self.claim = self._advance.forward(claim)
