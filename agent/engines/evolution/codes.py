"""The codes that a session shows for a phone to scan. A code is a secret."""

import hashlib
from dataclasses import dataclass, field

from agent.engines.base import Qr


@dataclass(frozen=True, slots=True)
class Code:
    text: str = field(repr=False)
    pairing_code: str = field(repr=False)
    number: int
    at: float
    """When we saw it first; the server made it earlier."""


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


def qr_of(code: Code, left: float) -> Qr | None:
    return Qr(code.text, max(1.0, left), max(1, code.number)) if code.text else None


def mark_code(code: str) -> str:
    """What is kept of a code: it cannot be scanned."""
    return hashlib.sha256(code.encode()).hexdigest()[:16] if code else ""
