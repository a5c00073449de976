"""How often a test asks whether what it waits for has happened."""


def pause(waited: float, asking: float = 0.0) -> float:
    """Seconds until it asks again: longer the longer it waits, and the longer the asking itself
    took. Asking costs the machine time that the thing waited for needs."""
    return max(min(max(waited / 20, 0.02), 0.1), min(3 * asking, 1.0))
