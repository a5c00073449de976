"""The codes that a session shows for a phone to scan. A code is a secret."""

import hashlib
from dataclasses import dataclass, field, replace

from agent.engines.base import Qr
from agent.engines.evolution.answers import Shown


@dataclass(frozen=True, slots=True)
class Code:
    text: str = field(repr=False)
    pairing_code: str = field(repr=False)
    number: int
    at: float
    """When we saw it first; the server made it earlier."""


@dataclass(slots=True)
class CodeToScan:
    """The code that a session shows now, and the last one that a phone scanned."""

    holds: float
    """Seconds for which a phone can scan it."""
    scanned: str
    """The mark of the last code that was scanned."""
    newest: Code | None = None
    """The newest code that the server showed; None after it was scanned or the login ended."""

    def current(self, now: float) -> Code | None:
        """None: no phone can scan it any more."""
        code = self.newest
        return code if code is not None and now - code.at < self.holds else None

    def qr(self, now: float) -> Qr | None:
        code = self.current(now)
        if code is None or not code.text:
            return None
        return Qr(code.text, max(1.0, code.at + self.holds - now), max(1, code.number))

    def note_shown(self, shown: Shown, now: float) -> None:
        before = self.newest
        if before is None or before.text != shown.code:
            number = shown.count or (before.number + 1 if before is not None else 1)
            self.newest = Code(shown.code, shown.pairing_code, number, now)
        elif shown.pairing_code:
            self.newest = replace(before, pairing_code=shown.pairing_code)

    def note_scanned(self) -> None:
        if self.newest is not None:
            self.scanned = mark_code(self.newest.text)
        self.newest = None

    def was_shown(self, shown: Shown) -> bool:
        return self.newest is not None and self.newest.text == shown.code

    def was_scanned(self, shown: Shown) -> bool:
        """The server goes on showing the last code through pairing, logout and silence."""
        return mark_code(shown.code) == self.scanned


@dataclass(slots=True)
class Questions:
    """When the keys of a session are asked for their account: once for each code, after each login
    that we asked for, and seldom."""

    again: float
    _code: Code | None = None
    _at: float = float("-inf")

    def login_begins(self) -> None:
        """A server that has no connection of the session yet could not answer; now it can."""
        self._at = float("-inf")

    def due(self, code: Code | None, at: float, now: bool) -> bool:
        due = now or code != self._code or at - self._at >= self.again
        if due:
            self._code, self._at = code, at
        return due


def mark_code(code: str) -> str:
    """What is kept of a code: it cannot be scanned."""
    return hashlib.sha256(code.encode()).hexdigest()[:16] if code else ""
