"""Renders /metrics from kept lines: a scrape costs only the changes since the last one.

Each family has a column with a piece of text per session. A session whose view is the same object
as before is skipped; a column without a change is not joined again.
"""

import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from operator import add
from pathlib import Path

from agent.clock import boot_now
from agent.core.model import InstanceId
from agent.core.view import AgentStatus, BackendView, InstanceView
from agent.metrics.agent import agent_samples
from agent.metrics.backends import backend_samples
from agent.metrics.http import HttpFigures
from agent.metrics.machine import MachineFigures
from agent.metrics.sessions import (
    FAMILIES,
    IN_STATUS,
    UPTIME,
    Growing,
    growing,
    past_statuses,
)
from agent.metrics.text import (
    END_OF_OPENMETRICS,
    GAUGE,
    OPENMETRICS,
    PLAIN,
    Family,
    sample,
    wants_openmetrics,
)

Views = Mapping[InstanceId, InstanceView]
_RENDER = Family("wa_agent_scrape_render_seconds", GAUGE, "Render time of the previous scrape.")


class _Column:
    """One family's text of all sessions, kept once with the end of each piece."""

    __slots__ = ("_ends", "_new", "_text")

    def __init__(self) -> None:
        self._text = b""
        self._ends = array("L")
        self._new: dict[int, bytes] = {}
        """Changed pieces, by the session's index."""

    def put(self, index: int, piece: str) -> None:
        new = piece.encode()
        if new != self._piece(index):
            self._new[index] = new
        else:
            self._new.pop(index, None)

    def arrange(self, keep: Sequence[int | None]) -> None:
        """After sessions came or went. `keep`: the old index of each, None for a new one."""
        self.text()
        pieces = [b"" if at is None else self._piece(at) for at in keep]
        self._ends = array("L", accumulate(map(len, pieces)))
        self._text = b"".join(pieces)

    def text(self) -> bytes:
        if self._new:
            self._put_together()
            self._new = {}
        return self._text

    def _put_together(self) -> None:
        """The old text with the new pieces in it."""
        parts: list[bytes] = []
        done, grown = 0, dict[int, int]()
        for index in sorted(self._new):
            new, end = self._new[index], self._ends[index]
            begin = self._ends[index - 1] if index else 0
            parts += (self._text[done:begin], new)
            done = end
            if len(new) != end - begin:
                grown[index] = len(new) - (end - begin)
        parts.append(self._text[done:])
        self._text = b"".join(parts)
        if grown:
            longer = accumulate(grown.get(index, 0) for index in range(len(self._ends)))
            self._ends = array("L", map(add, self._ends, longer))

    def _piece(self, index: int) -> bytes:
        return self._text[self._ends[index - 1] if index else 0 : self._ends[index]]


class SessionLines:
    """Every session's lines, kept up to date with the views."""

    def __init__(self) -> None:
        self._index: dict[InstanceId, int] = {}
        self._views: list[InstanceView | None] = []
        self._labels: list[str] = []
        self._columns = [_Column() for _ in FAMILIES]
        self._past = _Column()
        self._growing: list[Growing | None] = []
        self.rebuilt = 0
        """Sessions whose lines were rendered, since the start."""

    def update(self, views: Views) -> None:
        if views.keys() != self._index.keys():
            self._arrange(sorted(views))
        for id, index in self._index.items():
            view = views[id]
            if self._views[index] is not view:
                self._rebuild(index, view)

    def _arrange(self, ids: list[InstanceId]) -> None:
        """Give every session its index, and keep the lines of the old ones."""
        keep = [self._index.get(id) for id in ids]
        self._index = {id: index for index, id in enumerate(ids)}
        self._labels = [f'session="{id}"' for id in ids]
        self._views = [None if at is None else self._views[at] for at in keep]
        self._growing = [None if at is None else self._growing[at] for at in keep]
        for column in (*self._columns, self._past):
            column.arrange(keep)

    def _rebuild(self, index: int, view: InstanceView) -> None:
        label = self._labels[index]
        for column, (_, piece) in zip(self._columns, FAMILIES, strict=True):
            column.put(index, piece(label, view))
        self._past.put(index, past_statuses(label, view))
        self._growing[index] = growing(label, view)
        self._views[index] = view
        self.rebuilt += 1

    def samples(self, now_wall: float, now: float) -> Iterator[tuple[Family, bytes]]:
        """`now` is the boot clock's."""
        for column, (family, _) in zip(self._columns, FAMILIES, strict=True):
            yield family, column.text()
        rows = [row for row in self._growing if row is not None]
        yield UPTIME, "".join([row.uptime_line(now_wall) for row in rows]).encode()
        present = "".join([row.in_status_line(now) for row in rows]).encode()
        yield IN_STATUS, self._past.text() + present


class Exporter:
    """The answer of /metrics. Build it once; the HTTP interface counts into `http`."""

    def __init__(
        self,
        views: Callable[[], Views],
        status: Callable[[], AgentStatus],
        state_path: Path,
        *,
        backends: Callable[[], Iterable[BackendView]] = tuple,
        more: Callable[[], Iterable[tuple[Family, str]]] = tuple,
        wall: Callable[[], float] = time.time,
        boot: Callable[[], float] = boot_now,
    ) -> None:
        self._views = views
        self._status = status
        self._wall = wall
        self._boot = boot
        self.machine = MachineFigures(state_path)
        self._heads: dict[tuple[str, bool], bytes] = {}
        self._last_cost = 0.0
        self.http = HttpFigures()
        self.sessions = SessionLines()
        self.listeners: Callable[[], int] = lambda: 0
        self.backends = backends
        self.more = more

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The text and its content type, in the format of the Accept header."""
        begun = time.perf_counter()
        openmetrics = wants_openmetrics(accept)
        parts: list[bytes] = []
        for family, text in self._samples():
            if text:
                parts += (self._head(family, openmetrics), text)
        if openmetrics:
            parts.append(END_OF_OPENMETRICS)
        answer = b"".join(parts)
        self._last_cost = time.perf_counter() - begun
        return answer, OPENMETRICS if openmetrics else PLAIN

    def _samples(self) -> Iterator[tuple[Family, bytes]]:
        views = self._views()
        self.sessions.update(views)
        yield from self.sessions.samples(self._wall(), self._boot())
        yield from _encoded(agent_samples(self._status(), views, self.listeners()))
        yield from _encoded(backend_samples(self.backends()))
        yield from _encoded(self.more())
        yield from _encoded(self.http.samples())
        yield from _encoded(self.machine.samples())
        yield _RENDER, sample(_RENDER.name, self._last_cost).encode()

    def _head(self, family: Family, openmetrics: bool) -> bytes:
        key = (family.name, openmetrics)
        if key not in self._heads:
            self._heads[key] = family.head(openmetrics=openmetrics)
        return self._heads[key]


def _encoded(samples: Iterable[tuple[Family, str]]) -> Iterator[tuple[Family, bytes]]:
    return ((family, text.encode()) for family, text in samples)
