"""A route, and a request that it admitted: the input of a handler."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from agent.api.http.audit import Audit
from agent.api.http.auth import Caller, KeyRing, Right
from agent.api.http.body import forget_body, read_json
from agent.api.http.error_window import ErrorWindow
from agent.api.http.fields import Field, read_body, read_query
from agent.config.sections import ApiSection
from agent.core.model import InstanceId
from agent.core.troubles.trouble import Trouble
from agent.deliver.bus import Subscription
from agent.errors import TryLater
from agent.messages.reader import Reader
from agent.messages.sending import Sending
from agent.metrics.exporter import Exporter
from agent.moving.archives import Archives
from agent.supervise.periodic.usage import UsageSampler
from agent.supervise.supervisor import Supervisor

if TYPE_CHECKING:
    from agent.webhooks.part import Webhooks  # whose routes stand beside it

LARGE_AT_ONCE = 4
REVOKED = "its key was revoked"
_SLOWEST = 256 * 1024
"""Bytes per second that a client must send of a long body."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of the agent that handlers use."""

    section: ApiSection
    supervisor: Supervisor
    ring: KeyRing
    metrics: Exporter
    reader: Reader
    sending: Sending
    webhooks: "Webhooks"
    archives: Archives
    troubles: Callable[[], Collection[Trouble]]
    """Those that have begun."""
    check_database: Callable[[], Awaitable[str]]
    sampler: UsageSampler
    places: Mapping[str, str]
    """Paths of the agent: its state, its sessions, the agent.toml that it read."""
    session_root: Path
    worker_log: Callable[[InstanceId], Path | None]
    """Where the lines of a session's worker are; None: in the journal."""
    reload: Callable[[], None] = lambda: None
    """Lets the agent read agent.toml again."""
    audit: Audit = field(default_factory=Audit)
    not_listening: dict[str, str] = field(default_factory=dict)
    """HOST:PORT that another program still uses → the error."""
    errors: ErrorWindow = field(default_factory=ErrorWindow)
    large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LARGE_AT_ONCE))
    """Held while a body longer than `body_limit` is in memory."""
    listeners: dict[web.WebSocketResponse, "Listener"] = field(default_factory=dict)
    """The WebSockets that get events."""

    def end_listeners_of(self, key: str) -> None:
        """End the WebSockets that were opened with that key."""
        for listener in self.listeners.values():
            if listener.key == key:
                listener.subscription.end(REVOKED)


@dataclass(frozen=True, slots=True)
class Listener:
    transport: asyncio.Transport | None
    key: str
    """The id of its key; "" = it showed none."""
    subscription: Subscription


PATH_PARAMETER = re.compile(r"\{(\w+)(?::([^{}]*(?:\{[^{}]*\}[^{}]*)*))?\}")


def plain_path(path: str) -> str:
    """The path of a route without its patterns; also the `route` label of the metrics."""
    return PATH_PARAMETER.sub(r"{\1}", path)


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table: its handler, the right it needs, its fields and statuses."""

    method: str
    path: str
    right: Right
    run: "Handler"
    summary: str
    body: tuple[Field, ...] | None = None
    """None: the body is ignored, or the handler reads it itself; (): it must be empty."""
    query: tuple[Field, ...] = ()
    answers: tuple[int, ...] = (200,)
    """The first one is the status of an answer in JSON."""
    takes_archive: bool = False
    """True if the body is an archive."""
    timely: bool = False
    """True if it is answered after `?wait=` seconds whatever a worker or a server takes: 202 where
    the statuses have it, else 503. Other routes ask neither, or keep a time of their own."""
    waits: bool = False
    """True if with `?wait=` it is answered when something happens."""
    shows: Mapping[str, Any] | None = None
    """The schema of its answer in JSON, for OpenAPI; None: it is described in words."""


@dataclass(frozen=True, slots=True)
class Call:
    request: web.Request
    route: Route
    parts: Parts
    caller: Caller
    query: Mapping[str, Any]
    """The checked parameters."""

    @property
    def supervisor(self) -> Supervisor:
        return self.parts.supervisor

    @property
    def id(self) -> InstanceId:
        # The router's pattern admits only a well-formed id.
        return InstanceId(self.request.match_info["id"])

    async def body(self) -> dict[str, Any]:
        """The checked body; a route without fields refuses a body that is not empty."""
        return read_body(await self.raw_body(), self.route.body or ())

    @asynccontextmanager
    async def large_body(self, most: int) -> AsyncIterator[dict[str, Any]]:
        """A body that may be longer than `body_limit`; few of them are in memory at a time."""
        section, size = self.parts.section, self.request.content_length
        if size is not None and size <= section.body_limit:
            yield await self.raw_body()
            return
        try:
            async with asyncio.timeout(section.body_timeout):
                await self.parts.large.acquire()
        except TimeoutError as error:
            raise TryLater(
                "cannot read the body: too many long bodies are in work already; try again",
                code="busy",
            ) from error
        try:
            seconds = section.body_timeout + (size or most) / _SLOWEST
            yield await read_json(self.request, limit=most, seconds=seconds)
        finally:
            forget_body(self.request)
            self.parts.large.release()

    async def raw_body(self, most: int | None = None) -> dict[str, Any]:
        """`most`: bytes, if fewer than `body_limit`."""
        section = self.parts.section
        limit = section.body_limit if most is None else min(most, section.body_limit)
        return await read_json(self.request, limit=limit, seconds=section.body_timeout)


Json = Mapping[str, Any]
"""An answer in JSON."""
Handler = Callable[[Call], Awaitable[Json | web.StreamResponse]]


def read_call(request: web.Request, route: Route, parts: Parts, caller: Caller) -> Call:
    return Call(
        request, route, parts, caller, read_query(request.rel_url.query.items(), route.query)
    )
