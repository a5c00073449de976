"""Counts the requests of the HTTP interface."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from agent.core.figures.durations import Histogram
from agent.metrics.family import Family

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS = frozenset({"GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS"})
FAILURES = (500, 502, 503)
"""Statuses of failures, exported at zero: otherwise an increase misses the first failure."""


@dataclass(slots=True)
class Seen:
    """One request under way; `code` 0 at its end: the client has gone."""

    route: str = "other"
    code: int = 0
    failed: bool = False
    """An answer of 5xx, but for one that only says that something has not come yet."""


class HttpFigures:
    """No label here is chosen by a client: unknown routes and methods count as `other`."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        """By route, method and code."""
        self._failed = 0
        self._seconds: dict[str, Histogram] = {}

    def expect(self, routes: Iterable[tuple[str, str]]) -> None:
        """Export the failures of these methods and routes at zero."""
        for method, route in routes:
            self._requests.update({(route, method, code): 0 for code in FAILURES})

    @contextmanager
    def observe(self, method: str) -> Iterator[Seen]:
        seen, begun = Seen(), time.monotonic()
        try:
            yield seen
        finally:
            if seen.code:
                label = method if method in _METHODS else "other"
                self._requests[seen.route, label, seen.code] += 1
                self._failed += seen.failed
            if seen.code and seen.code != 101:  # a WebSocket's hours are not an answer's time
                times = self._seconds.setdefault(seen.route, Histogram(_BOUNDS))
                times.note(time.monotonic() - begun)

    def counted(self) -> tuple[int, int]:
        """All answered requests, and the failures of the agent among them."""
        return self._requests.total(), self._failed

    def families(self) -> Iterator[Family]:
        counts = [
            ({"route": route, "method": method, "code": str(code)}, count)
            for (route, method, code), count in self._requests.items()
        ]
        yield Family("wa_agent_http_requests_total", "Requests answered.", counts)
        times = [
            ({"route": route}, replace(its, counts=its.counts.copy()))
            for route, its in self._seconds.items()
        ]
        meaning = "How long requests took to answer."
        yield Family("wa_agent_http_request_duration_seconds", meaning, times)
