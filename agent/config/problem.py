"""What a rule found: which keys cannot be true together, and why."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    keys: tuple[str, ...]
    """The one to blame first; the place where one of them was set is named."""
    cause: str
