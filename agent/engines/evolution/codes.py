"""The codes that a session shows for a phone to scan. A code is a secret."""

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Code:
    text: str = field(repr=False)
    pairing_code: str = field(repr=False)
    number: int
    at: float
    """When we saw it first; the server made it earlier."""


def mark_code(code: str) -> str:
    """What is kept of a code: it cannot be scanned."""
    return hashlib.sha256(code.encode()).hexdigest()[:16] if code else ""
