"""Counts the requests of the HTTP interface."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from agent.metrics.text import COUNTER, HISTOGRAM, Family, histogram_lines, sample

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS = frozenset({"GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS"})

FAILURES = (500, 502, 503)
"""Statuses of failures, exported at zero: otherwise an increase misses the first failure."""

REQUESTS = Family("wa_agent_http_requests_total", COUNTER, "Requests answered.")
FAILED = Family(
    "wa_agent_http_requests_failed_total",
    COUNTER,
    "Requests answered with 5xx, without those for a QR code that has not come yet.",
)
SECONDS = Family(
    "wa_agent_http_request_duration_seconds", HISTOGRAM, "How long requests took to answer."
)


_Key = tuple[str, str, int]
"""Route, method, code."""


@dataclass(slots=True)
class Seen:
    """One request under way; `code` 0 at its end: the client has gone."""

    route: str = "other"
    code: int = 0
    failed: bool = False
    """An answer of 5xx, but for one that only says that something has not come yet."""


@dataclass(slots=True)
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(_BOUNDS) + 1))
    total: float = 0.0
    text: str = ""
    """Its lines; "" = they must be rendered."""

    def lines(self, route: str) -> str:
        if not self.text:
            bounds = map(str, _BOUNDS)
            self.text = histogram_lines(SECONDS.name, bounds, self.counts, self.total, route=route)
        return self.text


class HttpFigures:
    """No label here is chosen by a client: unknown routes and methods count as `other`."""

    def __init__(self) -> None:
        self._requests: Counter[_Key] = Counter()
        self._failed = 0
        self._lines: dict[_Key, str] = {}
        self._changed: set[_Key] = set()
        self._seconds: dict[str, _Histogram] = {}

    def expect(self, routes: Iterable[tuple[str, str]]) -> None:
        """Export the failures of these methods and routes at zero."""
        for method, route in routes:
            for code in FAILURES:
                self._count(route, method, code, 0)

    @contextmanager
    def observe(self, method: str) -> Iterator[Seen]:
        seen, begun = Seen(), time.monotonic()
        try:
            yield seen
        finally:
            if seen.code:
                label = method if method in _METHODS else "other"
                self._count(seen.route, label, seen.code, 1)
                self._failed += seen.failed
            if seen.code and seen.code != 101:  # a WebSocket's hours are not an answer's time
                self._note(seen.route, time.monotonic() - begun)

    def _count(self, route: str, method: str, code: int, more: int) -> None:
        key = (route, method, code)
        self._requests[key] += more
        self._changed.add(key)

    def _note(self, route: str, seconds: float) -> None:
        histogram = self._seconds.setdefault(route, _Histogram())
        histogram.counts[bisect_left(_BOUNDS, seconds)] += 1
        histogram.total += seconds
        histogram.text = ""

    def counted(self) -> tuple[int, int]:
        """All answered requests, and the failures of the agent among them."""
        return self._requests.total(), self._failed

    def samples(self) -> Iterator[tuple[Family, str]]:
        for route, method, code in self._changed:
            labels = {"route": route, "method": method, "code": str(code)}
            count = self._requests[route, method, code]
            self._lines[route, method, code] = sample(REQUESTS.name, count, **labels)
        self._changed.clear()
        yield REQUESTS, "".join(self._lines.values())
        yield FAILED, sample(FAILED.name, self._failed)
        histograms = self._seconds.items()
        yield SECONDS, "".join([histogram.lines(route) for route, histogram in histograms])
