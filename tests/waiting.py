"""What a test waits by: how often it asks, and a log that grows while it is read."""

from pathlib import Path


def pause(waited: float, asking: float = 0.0) -> float:
    """Seconds until it asks again: longer the longer it waits, and the longer the asking itself
    took. Asking costs the machine time that the thing waited for needs."""
    return max(min(max(waited / 20, 0.02), 0.1), min(3 * asking, 1.0))


class GrowingLog(type(Path())):  # type: ignore[misc]
    """A log that its program still writes: a reader may meet the half of a character."""

    def read_text(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        text: str = super().read_text(encoding, errors)
        return text
