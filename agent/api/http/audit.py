"""The audit log: changes, reads of codes to scan, refusals and failures, each with its caller.

A line has the address and the request's name, as its answer has. Lines that a client could cause
by the thousand are limited: the first is written, the others are counted. They are counted by the
connection's address: a client could name another one for each request.
"""

import asyncio
import logging
import re
from collections import OrderedDict
from dataclasses import dataclass, field

from aiohttp import web

from agent.api.http.auth import ANONYMOUS, Caller
from agent.api.http.connection import Connection
from agent.core.model import Category
from agent.errors import WaError
from agent.log import bound
from agent.logfiles import AUDIT

REQUEST_ID = web.RequestKey("request_id", str)
ROUTE = web.RequestKey("route", str)
SHOWN = frozenset({"id", "name", "machine", "key", "group", "snapshot", "removed", "failed"})
"""Parameters of a path that an operator or this agent chose. Any other may hold a contact's number,
a message's id or a secret."""
_CALLER = web.RequestKey("caller", tuple)
"""Of a known key or user without the right: its name, and that with its address."""
QUIET_SECONDS = 60.0
"""Seconds in which lines like the last one are counted only."""
MOST_SOURCES = 256
"""Sources that are counted at a time; beyond them the oldest is dropped."""
OPENS_A_SESSION = ("/api/instance/{id}/qr", "/api/instance/{id}/screenshot")
"""Their answers let a reader pair, or read messages."""


@dataclass(slots=True)
class Counted:
    more: int = 0
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class Audit:
    quiet_seconds: float = QUIET_SECONDS
    _said: OrderedDict[str, Counted] = field(default_factory=OrderedDict)

    def answered(
        self, request: web.Request, caller: Caller, id: str | None, status: int, more: str
    ) -> None:
        """Writes neither query nor body, which may hold secrets."""
        if caller == ANONYMOUS:
            return  # open routes change nothing; `refused` writes the refusals
        action = f"{request.method} {path_of(request)} → {status} {more}".rstrip()
        address = address_of(request)
        who = caller.name if caller.name == address else f"{caller.name} from {address}"
        line = f"{who}: {action} (request {_number(request)})"
        if status in (401, 403):
            request[_CALLER] = (caller.name, who)  # `refused` writes it
        elif request.method not in ("GET", "HEAD"):
            bound(Category.API, id, AUDIT).info("%s", line)
        elif request.get(ROUTE) in OPENS_A_SESSION and status == 200:
            # A page asks every few seconds while it shows the code.
            self._limited(f"read {caller.name} {id} {request.get(ROUTE)}", id, line, logging.INFO)

    def refused(self, request: web.Request, status: int, code: str) -> None:
        """A missing or wrong key, a missing right, a foreign host or page."""
        name, who = request.get(_CALLER, ("", address_of(request)))
        line = (
            f"refused {who}: {request.method} {path_of(request)} → {status} {code}"
            f" (request {_number(request)})"
        )
        source = " ".join(filter(None, ("refused", _connected_from(request), name)))
        self._limited(source, None, line, logging.WARNING)

    def failed(self, request: web.Request, error: WaError) -> None:
        """An answer 5xx: each cause once for each address."""
        line = f"request {_number(request)} of {address_of(request)}: {error}"
        source = f"failed {_connected_from(request)}: {error}"
        self._limited(source, None, line, logging.WARNING)

    def _limited(self, source: str, id: str | None, line: str, level: int) -> None:
        counted = self._said.get(source)
        if counted is not None:
            counted.more += 1
            return
        bound(Category.API, id, AUDIT).log(level, "%s", line)
        if len(self._said) >= MOST_SOURCES:
            self._forget(next(iter(self._said)), None, level)
        counted = self._said[source] = Counted()
        loop = asyncio.get_running_loop()
        counted.timer = loop.call_later(self.quiet_seconds, self._forget, source, id, level)

    def _forget(self, source: str, id: str | None, level: int) -> None:
        counted = self._said.pop(source, None)
        if counted is None:
            return
        if counted.timer is not None:
            counted.timer.cancel()
        if counted.more:
            bound(Category.API, id, AUDIT).log(
                level,
                "%s: %d more like the last within %g s",
                source,
                counted.more,
                self.quiet_seconds,
            )

    def close(self) -> None:
        """Write the counts."""
        for source in list(self._said):
            level = logging.INFO if source.startswith("read ") else logging.WARNING
            self._forget(source, None, level)


def path_of(request: web.Request) -> str:
    """The path for a line of a log: its route's pattern, filled in where SHOWN allows it."""
    resource = request.match_info.route.resource
    if resource is None:
        return str(request.get(ROUTE, "an unknown path"))
    given: dict[str, str] = dict(request.match_info)
    return re.sub(
        r"\{(\w+)\}",
        lambda part: given.get(part[1], part[0]) if part[1] in SHOWN else part[0],
        resource.canonical,
    )


def address_of(request: web.Request) -> str:
    """The connection's address, with the address that a proxy gives for its client."""
    forwarded = request.headers.get("X-Forwarded-For", "")
    return f"{_connected_from(request)}{f' for {forwarded[:80]!r}' if forwarded else ''}"


def _connected_from(request: web.Request) -> str:
    connection = request.protocol
    return (connection.address if isinstance(connection, Connection) else None) or "unknown"


def _number(request: web.Request) -> str:
    return str(request.get(REQUEST_ID, "-"))
