"""The answer of /metrics, from each room's families of figures. A scrape takes what there is on the
loop and writes it in a thread, by prometheus_client, which the first scrape loads."""

import asyncio
import os
import resource
import time
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.clock import boot_now
from agent.core import breaker, crypto_patterns, figures, health, reasons
from agent.core.model import ConnectionStatus, Health, InstanceId
from agent.core.recovery.repair import RecoveryKind
from agent.core.session import BackendView, Session
from agent.host.machine import TICKS, CoreUse, machine_memory, read_process

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.samples import Sample


@dataclass(frozen=True, slots=True)
class Summary:
    total: float
    count: int


Row = tuple[dict[str, str], float | Summary]
"""Labels and value."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: a counter if its name ends in `_total`, else what its values are.

    The scrape's thread reads `rows`: a number may be newer than the one before it.
    """

    name: str
    meaning: str
    rows: Iterable[Row]

    def collect(self) -> "Iterator[Metric]":
        """As prometheus_client asks a collector. Samples are made one by one: those of a family
        of a thousand sessions would take 25 MB."""
        from prometheus_client import Metric

        rows, plain = iter(self.rows), "counter" if self.name.endswith("_total") else "gauge"
        for first in rows:
            kind = "summary" if isinstance(first[1], Summary) else plain
            metric = Metric(self.name.removesuffix("_total"), self.meaning, kind)
            metric.samples = _samples(self.name, chain((first,), rows))  # type: ignore[assignment]
            yield metric


def _samples(name: str, rows: Iterable[Row]) -> "Iterator[Sample]":
    from prometheus_client.samples import Sample

    for labels, value in rows:
        labels = {key: _clean(text) for key, text in labels.items()}
        if isinstance(value, Summary):
            yield Sample(f"{name}_sum", labels, value.total)
            yield Sample(f"{name}_count", labels, value.count)
        else:
            yield Sample(name, labels, value)


def one(name: str, meaning: str, value: float | Summary | None) -> Family:
    """Return a family without labels; None: it is left out."""
    return Family(name, meaning, () if value is None else [({}, value)])


def render(families: Iterable[Family], *, gzip: bool = False) -> bytes:
    """Render family by family: the whole text of a thousand sessions has 12 MB."""
    from prometheus_client import generate_latest

    texts = map(generate_latest, families)
    if not gzip:
        return b"".join(texts)
    packer = zlib.compressobj(1, wbits=31)
    return b"".join([*map(packer.compress, texts), packer.flush()])


def _clean(text: str) -> str:
    """Replace half a surrogate pair, which a server may send: it is no UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


_REGAINED = tuple(it for it, *_ in reasons.reasons_table() if not reasons.reason_of(it).hopeless)
_ERRORS = (*(row[0] for row in reasons.reasons_table()), *crypto_patterns.OF_KEYS)
_SENT = {"sent": "out", "acknowledged": "ack", "failed": "failed"}
_NO_STEPS = (RecoveryKind.NONE, RecoveryKind.WAIT)
_STEPS = [kind.value for kind in RecoveryKind if kind not in _NO_STEPS]

Rows = Iterable[Row]
Read = Callable[[Session], Rows]


def _one(read: Callable[[Session], float | Summary | None]) -> Read:
    return lambda view: () if (value := read(view)) is None else (({}, value),)


def _state(label: str, words: Iterable[str], read: Callable[[Session], str]) -> Read:
    """Return a row for each state: 1 for the present one, 0 for the others."""
    shown = tuple(words)
    return lambda view: [({label: word.lower()}, int(word == read(view))) for word in shown]


def _counted(label: str, words: Sequence[str], counts: Mapping[str, int]) -> Rows:
    """Return a row for each word from the start on: else increase() would miss the first one."""
    return [({label: word}, counts.get(word, 0)) for word in words]


def _and_others(label: str, words: Sequence[str], counts: Mapping[str, int]) -> Rows:
    """Return a row for each word; words that are not in the list are counted together."""
    yield from _counted(label, words, counts)
    yield {label: "other"}, sum(counts.values()) - sum(map(counts.get, words, repeat(0)))


def _errors(view: Session) -> Rows:
    return _and_others("kind", _ERRORS, view.counters.errors)


def _reconnects(view: Session) -> Rows:
    return _and_others("reason", _REGAINED, view.counters.by_word["reconnects"])


def _restarts(view: Session) -> Rows:
    return _counted("reason", figures.COUNTS["restarts"], view.counters.by_word["restarts"])


def _info(view: Session) -> Rows:
    backend, version = view.instance.backend, view.engine_version
    labels = {"engine": view.instance.engine, "backend": backend, "engine_version": version}
    return [({key: text for key, text in labels.items() if text}, 1)]


def _messages(view: Session) -> Rows:
    yield {"direction": "in", "result": "received"}, view.counters.messages.get("in", 0)
    for result, word in _SENT.items():
        yield {"direction": "out", "result": result}, view.counters.messages.get(word, 0)


def _repairs(view: Session) -> Rows:
    for step in _STEPS:
        for result in ("done", "failed"):
            yield {"step": step, "result": result}, view.counters.repair_steps[step, result]


def _crypto(view: Session) -> Rows:
    """Return decryptions, but none if read messages are not counted: all would be failures."""
    return [({"result": result}, count) for result, count in view.crypto_operations.items()]


def _response_time(view: Session) -> Summary:
    return Summary(view.counters.probe_seconds, view.counters.probes)


def _in_status(view: Session) -> Rows:
    totals = view.status_time.totals(view.at)
    return [({"status": it.lower()}, totals.get(it, 0.0)) for it in ConnectionStatus]


FAMILIES: Mapping[str, tuple[str, Read]] = {
    "info": ("Engine, backend and their versions; always 1.", _info),
    "wanted": ("1 when it is enabled and not stopped by hand.", _one(health.is_wanted)),
    "status": ("1 for its present status.", _state("status", ConnectionStatus, lambda v: v.status)),
    "verdict": ("1 for its verdict.", _state("verdict", Health, lambda v: v.verdict.health)),
    "proof_timestamp_seconds": ("When the status was last proved.", _one(lambda v: v.proved_wall)),
    "circuit": ("1 for its state.", _state("state", breaker.BreakerState, lambda v: v.circuit)),
    "messages_total": ("Messages by direction and result.", _messages),
    "response_time_seconds": ("Answer times of the answered probes.", _one(_response_time)),
    "errors_total": ("Lost connections and errors by kind.", _errors),
    "memory_bytes": ("Memory of its processes.", _one(lambda v: v.run.memory_bytes)),
    "memory_limit_bytes": ("What it may use; 0 = no limit.", _one(lambda v: v.memory_limit)),
    "cpu_seconds_total": ("CPU time of its processes.", _one(lambda v: v.run.cpu_seconds)),
    "crypto_operations_total": ("Decryptions of messages by result.", _crypto),
    "repairs_total": ("Steps of repairs by result.", _repairs),
    "reconnects_total": ("Connections regained, by the reason of the loss.", _reconnects),
    "restarts_total": ("Restarts of the worker by cause.", _restarts),
    "uptime_seconds": ("Duration of the connection; 0 without one.", _one(lambda v: v.uptime)),
    "status_seconds_total": ("Time spent in each status.", _in_status),
}
"""Name without `wa_session_` → the meaning of a metric, and how it is read."""


def _rows(views: Sequence[Session], read: Read) -> Rows:
    for view in views:
        for labels, value in read(view):
            yield {"session": view.instance.id, **labels}, value


def labels_of_group(group: str) -> dict[str, str]:
    engine, _, backend = group.partition("/")
    return {"engine": engine, "backend": backend} if backend else {"engine": engine}


def agent_families(status: Mapping[str, Any], views: Collection[Session]) -> Iterator[Family]:
    labels = {"version": status["version"], "host": status["host"]}
    yield Family("wa_agent_info", "Its version and host; always 1.", [(labels, 1)])
    counted = Counter(view.status for view in views)
    shown = [({"status": it.lower()}, counted[it]) for it in ConnectionStatus]
    yield Family("wa_agent_sessions", "Sessions by status.", shown)
    rows: list[Row] = [(labels_of_group(it), bool(why)) for it, why in status["incidents"].items()]
    yield Family("wa_agent_incident_active", "1 while an incident of this engine goes on.", rows)
    spent = Summary(status["pass_seconds_total"], status["passes"])
    yield one("wa_agent_pass_duration_seconds", "Duration of passes.", spent)
    age = status["last_pass_age_seconds"]
    yield one("wa_agent_last_pass_age_seconds", "Age of the last pass.", age)


def backend_families(backends: Iterable[BackendView]) -> Iterator[Family]:
    views = sorted(backends, key=lambda view: view.name)
    up: list[Row] = [({"backend": view.name}, int(view.claim.up)) for view in views]
    yield Family("wa_backend_up", "1 while the server of the backend answers.", up)
    held: list[Row] = []
    for view in views:
        counts = {"held": view.held, "connected": view.connected, "seen": view.claim.sessions}
        known = ((state, count) for state, count in counts.items() if count is not None)
        held += [({"backend": view.name, "state": state}, count) for state, count in known]
    yield Family("wa_backend_sessions", "Sessions by state: held, connected, seen.", held)


_METHODS = frozenset({"GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS"})
FAILURES = (500, 502, 503)
"""Statuses of failures, exported at zero: otherwise an increase misses the first failure."""


@dataclass(slots=True)
class Seen:
    """One request under way; `code` 0 at its end: the client has gone."""

    route: str = "other"
    code: int = 0
    failed: bool = False
    """True for an answer of 5xx, unless it only says that something has not come yet."""


class HttpFigures:
    """Counts requests. A client chooses no label: unknown routes and methods are `other`."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        """(route, method, code) → number of requests."""
        self._failed = 0

    def expect(self, routes: Iterable[tuple[str, str]]) -> None:
        """Export the failures of these methods and routes at zero."""
        for method, route in routes:
            self._requests.update({(route, method, code): 0 for code in FAILURES})

    @contextmanager
    def observe(self, method: str) -> Iterator[Seen]:
        seen = Seen()
        try:
            yield seen
        finally:
            if seen.code:
                label = method if method in _METHODS else "other"
                self._requests[seen.route, label, seen.code] += 1
                self._failed += seen.failed

    def counted(self) -> tuple[int, int]:
        """Return all answered requests, and the failures of the agent among them."""
        return self._requests.total(), self._failed

    def families(self) -> Iterator[Family]:
        counts = [
            ({"route": route, "method": method, "code": str(code)}, count)
            for (route, method, code), count in self._requests.items()
        ]
        yield Family("wa_agent_http_requests_total", "Requests answered.", counts)


_FRESH_SECONDS = 5.0

_MEANINGS = {
    "process_resident_memory_bytes": "Resident memory of the agent.",
    "process_open_fds": "Open file descriptors of the agent.",
    "process_max_fds": "File descriptors that the agent may open.",
    "process_start_time_seconds": "Start of the agent's process.",
    "wa_host_memory_total_bytes": "Memory of the machine.",
    "wa_host_memory_used_bytes": "Memory in use on the machine.",
    "wa_host_cpu_usage_ratio": "Use of all cores since the last reading.",
    "wa_host_filesystem_avail_bytes": "Free space where the agent writes, on its fullest disk.",
}


class MachineFigures:
    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._cores = CoreUse()
        self._read_at = -1e9
        self._values: dict[str, float] = {}
        itself = read_process(os.getpid())
        age = boot_now() - (itself.start_ticks / TICKS if itself else 0.0)
        self._started_wall = time.time() - age

    def values(self) -> Mapping[str, float]:
        """Return each figure by its name, without unreadable ones."""
        if time.monotonic() - self._read_at >= _FRESH_SECONDS:
            self._values = {**dict(self._process_and_host()), **dict(self._filesystem())}
            self._read_at = time.monotonic()
        return self._values

    def families(self) -> Iterator[Family]:
        values = self.values()
        for name, meaning in _MEANINGS.items():
            yield one(name, meaning, values.get(name))

    def _process_and_host(self) -> Iterator[tuple[str, float]]:
        itself, (total, available) = read_process(os.getpid()), machine_memory()
        yield "process_resident_memory_bytes", itself.rss_bytes if itself else 0
        yield "process_open_fds", len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - its own
        yield "process_max_fds", resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        yield "process_start_time_seconds", self._started_wall
        yield "wa_host_memory_total_bytes", total
        yield "wa_host_memory_used_bytes", total - available
        yield "wa_host_cpu_usage_ratio", self._cores.read()

    def _filesystem(self) -> Iterator[tuple[str, float]]:
        with suppress(OSError):  # one is gone: a missing figure is better than an old one
            disks = [*map(os.statvfs, self._paths)]
            disk = min(disks, key=lambda it: it.f_bavail / (it.f_blocks or 1))
            yield "wa_host_filesystem_avail_bytes", disk.f_bavail * disk.f_frsize
            yield "wa_host_filesystem_size_bytes", disk.f_blocks * disk.f_frsize
            # The smallest share of inodes; some file systems count none.
            yield "free_files", min([it.f_favail / it.f_files for it in disks if it.f_files] or [1])


class Exporter:
    """Exports all metrics. One is built; the HTTP interface counts into its `http`."""

    CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(
        self,
        views: Callable[[], Mapping[InstanceId, Session]],
        status: Callable[[], Mapping[str, Any]],
        paths: Iterable[Path],
        more: Callable[[], Iterable[Family]] = tuple,
    ) -> None:
        """Make the exporter. `paths`: where agent and workers write, on one disk or several."""
        self._views, self._status, self._more = views, status, more
        self._turn = asyncio.Lock()
        self.machine = MachineFigures(*paths)
        self.http = HttpFigures()

    async def scrape(self, *, gzip: bool) -> bytes:
        """Scrape, one at a time: a client in a hurry gets no second thread."""
        async with self._turn:
            return await asyncio.to_thread(render, list(self.families()), gzip=gzip)

    def families(self) -> Iterator[Family]:
        views = list(self._views().values())
        for name, (meaning, read) in FAMILIES.items():
            yield Family(f"wa_session_{name}", meaning, _rows(views, read))
        yield from agent_families(self._status(), views)
        yield from self._more()
        yield from self.http.families()
        yield from self.machine.families()
