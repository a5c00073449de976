"""A route, and a request that it admitted: the input of a handler."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web

from agent.api.http.auth import Audit, Caller, KeyRing, Right
from agent.api.http.fields import (
    INTEGER,
    Field,
    TooSlow,
    UnsupportedType,
    invite,
    read_json,
)
from agent.config.config import ApiSection
from agent.core.model import InstanceId
from agent.core.session import Session
from agent.core.trouble import Trouble, Windows
from agent.deliver.bus import Subscription
from agent.errors import InvalidRequest, TryLater
from agent.messages.reader import Reader
from agent.messages.sending import Sending
from agent.metrics.exporter import Exporter
from agent.moving.archives import Archives
from agent.supervise.assemble import Supervisor

if TYPE_CHECKING:
    from agent.webhooks.part import Webhooks  # whose routes stand beside it

ANSWER_WITHIN = 10
WAIT = (
    Field(
        "wait",
        INTEGER,
        f"seconds after which it is answered, default {ANSWER_WITHIN}: 202 where the work goes on,"
        " 503 where the answer is what was asked for",
        most=300,
    ),
)
LARGE_AT_ONCE = 4
REVOKED = "its key was revoked"
_SLOWEST = 256 * 1024
"""Bytes per second that a client must send of a long body."""

ARCHIVES = ("application/gzip", "application/octet-stream")


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
    windows: Windows
    """How much the counters of sessions rose lately."""
    places: Mapping[str, str]
    """Paths of the agent: its state, its sessions, the agent.toml that it read."""
    reload: asyncio.Event = field(default_factory=asyncio.Event)
    """Set: the agent reads agent.toml again."""
    audit: Audit = field(default_factory=Audit)
    not_listening: dict[str, str] = field(default_factory=dict)
    """HOST:PORT that another program still uses → the error."""
    large: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, LARGE_AT_ONCE))
    """Held while a body longer than `body_limit` is in memory."""
    listeners: dict[Subscription, str] = field(default_factory=dict)
    """Of each WebSocket, with the id of its key; "" = it showed none."""

    def end_listeners_of(self, key: str) -> None:
        """End the WebSockets that were opened with that key."""
        for subscription, own in self.listeners.items():
            if own == key:
                subscription.end(REVOKED)


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
    """None: the body is ignored, or of a POST an archive; (): it must be empty."""
    large: bool = False
    """True if the handler reads the body, which may be longer than `body_limit`."""
    query: tuple[Field, ...] = ()
    answers: tuple[int, ...] = (200,)
    """The first one is the status of an answer in JSON."""
    timely: bool = False
    """True if it is answered after `?wait=` seconds whatever a worker or a server takes: 202 where
    the statuses have it, else 503. Other routes ask neither, or keep a time of their own."""
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
    body: dict[str, Any]
    """The checked body; empty where the handler reads it by itself."""

    @property
    def supervisor(self) -> Supervisor:
        return self.parts.supervisor

    @property
    def view(self) -> Session:
        """The instance of its path; NotFound without such an instance."""
        # The application refuses an id that is not well-formed.
        return self.supervisor.view(InstanceId(self.request.match_info["id"]))

    @property
    def id(self) -> InstanceId:
        return self.view.instance.id

    @property
    def engine(self) -> str:
        return self.view.instance.engine

    @asynccontextmanager
    async def large_body(self, most: int) -> AsyncIterator[dict[str, Any]]:
        """A body that may be longer than `body_limit`; few of them are in memory at a time."""
        section, size = self.parts.section, self.request.content_length
        if size is not None and size <= section.body_limit:
            yield await read_json(self.request, section.body_limit, section.body_timeout)
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
            yield await read_json(self.request, most, seconds)
        finally:
            self.parts.large.release()


async def archive_of(call: Call) -> AsyncIterator[bytes]:
    """The body, where it says that it is an archive, in pieces, each within `body_timeout`."""
    if call.request.content_type not in ARCHIVES:
        raise UnsupportedType(
            f"cannot read the archive: its Content-Type must be {ARCHIVES[0]}", field="body"
        )
    if call.request.headers.get("Content-Encoding", "identity") != "identity":
        raise UnsupportedType("cannot read the archive: it has a Content-Encoding", field="body")
    seconds = call.parts.section.body_timeout
    await invite(call.request)
    while True:
        try:
            async with asyncio.timeout(seconds):
                piece = await call.request.content.readany()
        except TimeoutError as error:
            cause = f"the client sent nothing for {seconds:g} seconds"
            raise TooSlow(f"cannot read the archive: {cause}") from error
        except web.RequestPayloadError as error:
            raise InvalidRequest("cannot read the archive: it ended early", field="body") from error
        if not piece:
            return
        yield piece


Json = Mapping[str, Any]
"""An answer in JSON."""
Handler = Callable[[Call], Awaitable[Json | web.StreamResponse]]


def look_at(id: str) -> Json:
    return {
        "state": f"/api/instance/{id}",
        "qr": f"/api/instance/{id}/qr",
        "why": f"wa-agent why {id}",
    }
