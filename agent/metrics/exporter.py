"""Renders /metrics from kept lines: a scrape costs what changed since the last one.

For each family there is a column with one piece of text per session. A session whose view
is the same object as before is not looked at again; a column in which nothing changed is
not joined again.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from agent.core.model import InstanceId
from agent.core.view import AgentStatus, BackendView, InstanceView
from agent.metrics.backends import backend_samples
from agent.metrics.http import HttpFigures
from agent.metrics.machine import MachineFigures
from agent.metrics.own import agent_samples
from agent.metrics.sessions import FAMILIES, IN_STATUS, UPTIME, past_statuses, uptime_line
from agent.metrics.text import (
    END_OF_OPENMETRICS,
    GAUGE,
    OPENMETRICS,
    PLAIN,
    Family,
    number,
    sample,
    wants_openmetrics,
)

Views = Mapping[InstanceId, InstanceView]
_RENDER = Family("wa_agent_scrape_render_seconds", GAUGE, "What the scrape before this one cost.")


class _Column:
    """One family's pieces, and their joined text while nothing changes."""

    __slots__ = ("joined", "pieces")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.joined: bytes | None = None

    def put(self, index: int, piece: str) -> None:
        if self.pieces[index] != piece:
            self.pieces[index] = piece
            self.joined = None

    def text(self) -> bytes:
        if self.joined is None:
            self.joined = "".join(self.pieces).encode()
        return self.joined


class SessionLines:
    """Every session's lines, kept up to date with the views."""

    def __init__(self) -> None:
        self._index: dict[InstanceId, int] = {}
        self._views: list[InstanceView | None] = []
        self._labels: list[str] = []
        self._past: list[tuple[str, str, float]] = []
        self._columns = [_Column() for _ in FAMILIES]
        self.rebuilt = 0
        """Sessions whose lines were made anew, over all time."""

    def update(self, views: Views) -> None:
        if views.keys() != self._index.keys():
            self._arrange(sorted(views))
        for id, index in self._index.items():
            view = views[id]
            if self._views[index] is not view:
                self._rebuild(index, view)

    def _arrange(self, ids: list[InstanceId]) -> None:
        """Give every session its place, and keep the lines of those that were there."""
        keep = [self._index.get(id) for id in ids]
        self._index = {id: place for place, id in enumerate(ids)}
        self._labels = [f'session="{id}"' for id in ids]
        self._views = [None if at is None else self._views[at] for at in keep]
        self._past = [("", "", 0.0) if at is None else self._past[at] for at in keep]
        for column in self._columns:
            column.pieces = ["" if at is None else column.pieces[at] for at in keep]
            column.joined = None

    def _rebuild(self, index: int, view: InstanceView) -> None:
        label = self._labels[index]
        for column, (_, piece) in zip(self._columns, FAMILIES, strict=True):
            column.put(index, piece(label, view))
        self._past[index] = past_statuses(label, view)
        self._views[index] = view
        self.rebuilt += 1

    def samples(self, now_wall: float) -> Iterator[tuple[Family, bytes]]:
        for column, (family, _) in zip(self._columns, FAMILIES, strict=True):
            yield family, column.text()
        present = [view for view in self._views if view is not None]
        yield (
            UPTIME,
            "".join(
                uptime_line(label, view, now_wall)
                for label, view in zip(self._labels, present, strict=True)
            ).encode(),
        )
        yield (
            IN_STATUS,
            "".join(
                f"{lines}{growing}"
                f"{number(round(spent + max(0.0, now_wall - view.status_since_wall), 3))}\n"
                for (lines, growing, spent), view in zip(self._past, present, strict=True)
            ).encode(),
        )


class Exporter:
    """What /metrics answers. Build it once; the HTTP interface counts into `http`."""

    def __init__(
        self,
        views: Callable[[], Views],
        status: Callable[[], AgentStatus],
        state_path: Path,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._views = views
        self._status = status
        self._wall = wall
        self.machine = MachineFigures(state_path)
        self._heads: dict[tuple[str, bool], bytes] = {}
        self._last_cost = 0.0
        self.http = HttpFigures()
        self.sessions = SessionLines()
        self.listeners: Callable[[], int] = lambda: 0
        self.backends: Callable[[], Iterable[BackendView]] = tuple

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The text and its content type, in the format that was asked for."""
        begun = time.perf_counter()
        openmetrics = wants_openmetrics(accept)
        parts: list[bytes] = []
        for family, text in self._samples():
            if text:
                parts += (self._head(family, openmetrics), text)
        if openmetrics:
            parts.append(END_OF_OPENMETRICS)
        found = b"".join(parts)
        self._last_cost = time.perf_counter() - begun
        return found, OPENMETRICS if openmetrics else PLAIN

    def _samples(self) -> Iterator[tuple[Family, bytes]]:
        views = self._views()
        self.sessions.update(views)
        yield from self.sessions.samples(self._wall())
        yield from _encoded(agent_samples(self._status(), views, self.listeners()))
        yield from _encoded(backend_samples(self.backends()))
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
