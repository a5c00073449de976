"""Counts the requests of the HTTP interface."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from agent.metrics.text import COUNTER, HISTOGRAM, Family, sample

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS = frozenset({"GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS"})

REQUESTS = Family("wa_agent_http_requests_total", COUNTER, "Requests answered.")
SECONDS = Family(
    "wa_agent_http_request_duration_seconds", HISTOGRAM, "How long requests took to answer."
)


@dataclass(slots=True)
class Seen:
    """One request under way; `code` 0 at its end means that nobody was left to answer."""

    route: str = "other"
    code: int = 0


@dataclass(slots=True)
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(_BOUNDS) + 1))
    total: float = 0.0


class HttpFigures:
    """No label here is chosen by a client: unknown routes and methods count as `other`."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._seconds: dict[str, _Histogram] = {}

    @contextmanager
    def observe(self, method: str) -> Iterator[Seen]:
        seen, begun = Seen(), time.monotonic()
        try:
            yield seen
        finally:
            if seen.code:
                known = method if method in _METHODS else "other"
                self._requests[seen.route, known, seen.code] += 1
            if seen.code and seen.code != 101:  # a WebSocket's hours are not an answer's time
                self._note(seen.route, time.monotonic() - begun)

    def _note(self, route: str, seconds: float) -> None:
        histogram = self._seconds.setdefault(route, _Histogram())
        histogram.counts[bisect_left(_BOUNDS, seconds)] += 1
        histogram.total += seconds

    def counted(self) -> tuple[int, int]:
        """All requests answered, and those of them that failed on our side."""
        failed = sum(count for (_, _, code), count in self._requests.items() if code >= 500)
        return self._requests.total(), failed

    def samples(self) -> Iterator[tuple[Family, str]]:
        yield (
            REQUESTS,
            "".join(
                sample(REQUESTS.name, count, route=route, method=method, code=str(code))
                for (route, method, code), count in sorted(self._requests.items())
            ),
        )
        yield SECONDS, "".join(self._histogram_lines())

    def _histogram_lines(self) -> Iterator[str]:
        for route, histogram in sorted(self._seconds.items()):
            so_far = 0
            for bound, count in zip((*_BOUNDS, None), histogram.counts, strict=True):
                so_far += count
                le = "+Inf" if bound is None else str(bound)
                yield sample(f"{SECONDS.name}_bucket", so_far, route=route, le=le)
            yield sample(f"{SECONDS.name}_sum", histogram.total, route=route)
            yield sample(f"{SECONDS.name}_count", so_far, route=route)
