"""The answer of /metrics. A scrape takes what there is on the loop and writes it in a thread."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from agent.clock import boot_now
from agent.core.model import InstanceId
from agent.core.view import AgentStatus, BackendView, InstanceView
from agent.metrics.agent import agent_families, backend_families
from agent.metrics.family import Family, one, render
from agent.metrics.http import HttpFigures
from agent.metrics.machine import MachineFigures
from agent.metrics.sessions import session_families


class Exporter:
    """Build it once; the HTTP interface counts into `http`."""

    def __init__(
        self,
        views: Callable[[], Mapping[InstanceId, InstanceView]],
        status: Callable[[], AgentStatus],
        state_path: Path,
        *,
        backends: Callable[[], Iterable[BackendView]] = tuple,
        more: Callable[[], Iterable[Family]] = tuple,
        wall: Callable[[], float] = time.time,
        boot: Callable[[], float] = boot_now,
    ) -> None:
        self._views = views
        self._status = status
        self._wall = wall
        self._boot = boot
        self._last_cost = 0.0
        self._turn = asyncio.Lock()
        self.machine = MachineFigures(state_path)
        self.http = HttpFigures()
        self.listeners: Callable[[], int] = lambda: 0
        self.backends = backends
        self.more = more

    async def scrape(self, *, gzip: bool) -> bytes:
        """One at a time: a client in a hurry gets no second thread."""
        async with self._turn:
            begun = time.perf_counter()
            text = await asyncio.to_thread(render, list(self.families()), gzip=gzip)
            self._last_cost = time.perf_counter() - begun
            return text

    def families(self) -> Iterator[Family]:
        views = list(self._views().values())
        yield from session_families(views, self._wall(), self._boot())
        yield from agent_families(self._status(), views, self.listeners())
        yield from backend_families(self.backends())
        yield from self.more()
        yield from self.http.families()
        yield from self.machine.families()
        meaning = "Render time of the previous scrape."
        yield one("wa_agent_scrape_render_seconds", meaning, self._last_cost)
