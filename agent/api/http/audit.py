"""The audit log: changes, reads of codes to scan, refusals and failures, each with its caller.

A line has the address and the request's name, as its answer has. Lines that a client could cause
by the thousand are limited: the first is written, and the number of the others with the next one
after a minute. They are counted by the connection's address: a client could name another one for
each request.
"""

import logging
import time
from dataclasses import dataclass, field

from aiohttp import web

from agent.api.http.auth import ANONYMOUS, Caller
from agent.api.http.connection import Connection
from agent.core.model import Category
from agent.errors import WaError
from agent.log import bound
from agent.logfiles import AUDIT

REQUEST_ID = web.RequestKey("request_id", str)
SHOWN = frozenset({"id", "name", "machine", "key", "group", "snapshot", "removed", "failed"})
"""Parameters of a path that an operator or this agent chose. Any other may hold a contact's number,
a message's id or a secret."""
CALLER = web.RequestKey("caller", Caller)
QUIET_SECONDS = 60.0
"""Seconds in which lines like the last one are counted only."""
MOST_SOURCES = 256
"""Sources that are counted at a time; beyond them the oldest is dropped."""
OPENS_A_SESSION = ("/api/instance/{id}/qr", "/api/instance/{id}/screenshot")
"""Their answers let a reader pair, or read messages."""


@dataclass(slots=True)
class Audit:
    _said: dict[str, tuple[float, int]] = field(default_factory=dict)
    """When the last line of a source was written, and how many came since."""

    def answered(self, request: web.Request, status: int, more: str) -> None:
        """A change, a read of a code, a refusal: a missing or wrong key, a missing right, a foreign
        host or page. Writes neither query nor body, which may hold secrets."""
        caller, id = request.get(CALLER, ANONYMOUS), request.match_info.get("id")
        known = caller.name if caller != ANONYMOUS else ""
        who = address = address_of(request)
        if known and known != address:
            who = f"{known} from {address}"
        action = f"{request.method} {path_of(request)} → {status} {more}".rstrip()
        line = f"{action} (request {_number(request)})"
        if status in (401, 403):
            source = " ".join(filter(None, ("refused", _connected_from(request), known)))
            self._limited(source, None, f"refused {who}: {line}", logging.WARNING)
        elif not known:
            return  # open routes change nothing
        elif request.method not in ("GET", "HEAD"):
            bound(Category.API, id, AUDIT).info("%s", f"{who}: {line}")
        elif (route := route_of(request)) in OPENS_A_SESSION and status == 200:
            # A page asks every few seconds while it shows the code.
            self._limited(f"read {known} {id} {route}", id, f"{who}: {line}", logging.INFO)

    def failed(self, request: web.Request, error: WaError) -> None:
        """An answer 5xx: each cause once for each address."""
        line = f"request {_number(request)} of {address_of(request)}: {error}"
        source = f"failed {_connected_from(request)}: {error}"
        self._limited(source, None, line, logging.WARNING)

    def _limited(self, source: str, id: str | None, line: str, level: int) -> None:
        now = time.monotonic()
        written, more = self._said.pop(source, (-QUIET_SECONDS, 0))
        if now - written < QUIET_SECONDS:
            self._said[source] = written, more + 1
            return
        if len(self._said) >= MOST_SOURCES:
            del self._said[next(iter(self._said))]
        self._said[source] = now, 0
        others = f"; {more} more like the last came before it" if more else ""
        bound(Category.API, id, AUDIT).log(level, "%s%s", line, others)


def route_of(request: web.Request) -> str:
    """Without its patterns, as the `route` label of the metrics; "" = none has that path."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else ""


def path_of(request: web.Request) -> str:
    """The path for a line of a log: its route's pattern, filled in where SHOWN allows it."""
    path = route_of(request) or "an unknown path"
    for name in SHOWN & request.match_info.keys():
        path = path.replace(f"{{{name}}}", request.match_info[name])
    return path


def address_of(request: web.Request) -> str:
    """The connection's address, with the address that a proxy gives for its client."""
    forwarded = request.headers.get("X-Forwarded-For", "")
    return f"{_connected_from(request)}{f' for {forwarded[:80]!r}' if forwarded else ''}"


def _connected_from(request: web.Request) -> str:
    return request.protocol.address if isinstance(request.protocol, Connection) else "unknown"


def _number(request: web.Request) -> str:
    return str(request.get(REQUEST_ID, "-"))
