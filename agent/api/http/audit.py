"""The audit log: who changed what, who read a code to scan, and who was refused.

Each line names the address and the number of the request, which its answer carries too. Lines
that anyone could cause by the thousand are limited: the first at once, the others as a count.
"""

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass, field

from aiohttp import web

from agent.api.http.auth import NOBODY, Caller
from agent.api.http.connection import Connection
from agent.api.http.guard import is_hook
from agent.core.model import Category
from agent.log import bound
from agent.logfiles import AUDIT

REQUEST_ID = web.RequestKey("request_id", str)
ROUTE = web.RequestKey("route", str)
QUIET_SECONDS = 60.0
"""After a line, so long the like of it is only counted."""
MOST_SOURCES = 256
"""Sources that are told apart; beyond them the oldest is forgotten."""
OPENS_A_SESSION = ("/api/instance/{id}/qr", "/api/instance/{id}/screenshot")
"""What they answer lets whoever sees it pair, or read along."""


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
        """Neither query nor body: they may hold secrets."""
        if caller == NOBODY:
            return  # what is open to all changes nothing; refusals are noted elsewhere
        what = f"{request.method} {request.path} → {status} {more}".rstrip()
        address = address_of(request)
        who = caller.name if caller.name == address else f"{caller.name} from {address}"
        line = f"{who}: {what} (request {_number(request)})"
        if request.method not in ("GET", "HEAD"):
            bound(Category.API, id, AUDIT).info("%s", line)
        elif request.get(ROUTE) in OPENS_A_SESSION and status == 200:
            # A page asks every few seconds for as long as it shows the code.
            self._limited(f"read {caller.name} {id} {request.get(ROUTE)}", id, line, logging.INFO)

    def refused(self, request: web.Request, status: int, code: str) -> None:
        """A key that is missing, wrong or not enough, a foreign host or page, a hook's secret."""
        address = address_of(request)
        # Of a hook's path the last part is a secret, and it may be nearly right.
        path = request.get(ROUTE, "a hook") if is_hook(request) else request.path[:200]
        line = (
            f"refused {address}: {request.method} {path} → {status} {code}"
            f" (request {_number(request)})"
        )
        self._limited(f"refused {address}", None, line, logging.WARNING)

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
            word, _, who = source.partition(" ")
            bound(Category.API, id, AUDIT).log(
                level,
                "%s: %d more like the last within %g s",
                f"{word} {who}",
                counted.more,
                self.quiet_seconds,
            )

    def close(self) -> None:
        """Say what was only counted so far."""
        for source in list(self._said):
            level = logging.WARNING if source.startswith("refused ") else logging.INFO
            self._forget(source, None, level)


def address_of(request: web.Request) -> str:
    """Of the connection; behind a proxy, what it says of its client stands beside it."""
    connection = request.protocol
    address = connection.address if isinstance(connection, Connection) else None
    forwarded = request.headers.get("X-Forwarded-For", "")
    return f"{address or 'unknown'}{f' for {forwarded[:80]!r}' if forwarded else ''}"


def _number(request: web.Request) -> str:
    return str(request.get(REQUEST_ID, "-"))
