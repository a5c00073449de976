"""One request that was let in: what a route's function works with."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from agent.api.http.audit import Audit
from agent.api.http.auth import Caller, KeyRing, Right
from agent.api.http.body import read_json
from agent.api.http.error_window import ErrorWindow
from agent.api.http.fields import Field, read_body, read_query
from agent.api.http.idempotency import Remembered
from agent.api.http.wrong_invites import WrongInvites
from agent.config.sections import ApiSection
from agent.core.alerts import AlertBoard
from agent.core.model import InstanceId
from agent.deliver.webhooks.all import Webhooks
from agent.errors import TryLater
from agent.metrics.exporter import Exporter
from agent.supervise.requests.evidence import Evidence
from agent.supervise.supervisor import Supervisor

LARGE_AT_ONCE = 4
_SLOWEST = 256 * 1024
"""Bytes in a second that a client must send of a long body."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the interface was built from."""

    section: ApiSection
    supervisor: Supervisor
    ring: KeyRing
    metrics: Exporter
    answers: Remembered
    check_database: Callable[[], Awaitable[str]]
    alerts: Callable[[], AlertBoard]
    webhooks: Webhooks
    evidence: Evidence
    places: Mapping[str, str]
    """Where the agent's own things are: agent.toml (where it read one), state and the like."""
    audit: Audit = field(default_factory=Audit)
    not_listening: dict[str, str] = field(default_factory=dict)
    """HOST:PORT that could not be had yet → why."""
    errors: ErrorWindow = field(default_factory=ErrorWindow)
    large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LARGE_AT_ONCE))
    """Held while there is a body that is longer than others may be."""
    wrong_invites: WrongInvites = field(default_factory=WrongInvites)
    listeners: dict[web.WebSocketResponse, asyncio.Transport | None] = field(default_factory=dict)
    """Who hears events, over which connection."""


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table: who may do what, and what it takes."""

    method: str
    path: str
    right: Right
    run: Callable[["Call"], Awaitable[web.StreamResponse]]
    summary: str
    body: tuple[Field, ...] | None = None
    query: tuple[Field, ...] = ()
    answers: tuple[int, ...] = (200,)
    hook: bool = False
    """True where a server of someone else's calls: a secret in the path is its only key, so no
    other one is looked at, and the path is written down nowhere."""
    invite: bool = False
    """True where a desk calls: the header of its invitation is the key."""
    takes_archive: bool = False
    """True where the body is an archive."""


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
        # The router's pattern let only a well-formed id through.
        return InstanceId(self.request.match_info["id"])

    async def body(self) -> dict[str, Any]:
        """The checked body; a route without a body refuses one that is not empty."""
        found = await self.raw_body()
        return read_body(found, self.route.body or ())

    @asynccontextmanager
    async def large_body(self, most: int) -> AsyncIterator[dict[str, Any]]:
        """The same for a body that may be longer than others: few are in memory at a time."""
        section, size = self.parts.section, self.request.content_length
        if size is not None and size <= section.body_limit:
            yield await self.raw_body()
            return
        try:
            async with asyncio.timeout(section.body_timeout):
                await self.parts.large.acquire()
        except TimeoutError as error:
            raise TryLater(
                "cannot read the body: too many long bodies are in work already", code="busy"
            ) from error
        try:
            seconds = section.body_timeout + (size or most) / _SLOWEST
            yield await read_json(self.request, limit=most, seconds=seconds)
        finally:
            self.parts.large.release()

    async def raw_body(self, most: int | None = None) -> dict[str, Any]:
        """`most`: bytes, where less than the interface's own limit is taken."""
        section = self.parts.section
        limit = section.body_limit if most is None else min(most, section.body_limit)
        return await read_json(self.request, limit=limit, seconds=section.body_timeout)


def read_call(request: web.Request, route: Route, parts: Parts, caller: Caller) -> Call:
    return Call(
        request, route, parts, caller, read_query(request.rel_url.query.items(), route.query)
    )
