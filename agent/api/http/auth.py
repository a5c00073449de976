"""The caller of a request: its rights, by a bearer key with scopes or by a trusted socket, and its
lines of the audit log.

A key reads `wak_<id>_<secret>`; only the SHA-256 of the whole is stored. Its scopes are `read`,
`operate`, `admin` (each with all before it) and `instance:ID` (operate, for one instance).
"""

import hashlib
import hmac
import logging
import re
import secrets
import time
from dataclasses import dataclass, field, replace
from enum import IntEnum
from string import ascii_lowercase, digits
from urllib.parse import urlsplit

from aiohttp import web

from agent import errors, log, logfiles
from agent.api.http.connection import connection_of
from agent.config.config import ApiSection, is_loopback
from agent.core.model import Category, InstanceId, parse_instance_id
from agent.store.database import Store
from agent.store.rows import KeyRow


class Right(IntEnum):
    OPEN = 0
    """No key is needed."""
    SOME = 1
    """Any key is enough; the answer is limited to the instances of that key."""
    READ = 2
    OPERATE = 3
    ADMIN = 4


LEVELS = {right.name.lower(): right for right in (Right.READ, Right.OPERATE, Right.ADMIN)}
_OF_PROXIES = ("forwarded", "via", "x-forwarded", "x-real")
_TOKEN = re.compile(r"wak_([a-z0-9]{8})_([A-Za-z0-9_-]{16,128})")


@dataclass(frozen=True, slots=True)
class Caller:
    name: str
    level: Right = Right.OPEN
    instances: frozenset[InstanceId] = field(default_factory=frozenset)
    key: str = ""
    """Id of the caller's key; "" = the caller showed none."""

    def may(self, right: Right, instance: InstanceId | None = None) -> bool:
        if right is Right.OPEN or self.level >= right:
            return True
        if right is Right.SOME:
            return bool(self.instances)
        return right <= Right.OPERATE and instance is not None and instance in self.instances

    def sees(self, instance: InstanceId | None) -> bool:
        """True if the caller may see the instance. None stands for the agent and all instances."""
        return self.may(Right.READ, instance)


ANONYMOUS = Caller("anonymous")


class KeyRing:
    """The keys, held in memory: a check of a key never waits for the database."""

    def __init__(self, store: Store, rows: list[KeyRow]) -> None:
        self._store = store
        self._rows = {row.id: row for row in rows}
        self._used_wall: dict[str, float] = {}

    def rows(self) -> list[KeyRow]:
        return sorted(self._rows.values(), key=lambda row: (row.created_wall, row.id))

    async def add(self, name: str, scopes: tuple[str, ...]) -> tuple[KeyRow, str]:
        """Make a key; return its row and its token, which is not stored."""
        wide = [it for it in scopes if it in ("operate", "admin")]
        own = [parse_instance_id(it[9:]) for it in scopes if it.startswith("instance:")]
        if wide and own:
            cause = f"{wide[0]} is for every session; for some of them name instance:ID without it"
            raise errors.InvalidRequest(f"cannot make this key: {cause}", field="scopes")
        id = "".join(secrets.choice(ascii_lowercase + digits) for _ in range(8))
        token = f"wak_{id}_{secrets.token_urlsafe(32)}"
        row = KeyRow(id=id, hash=_digest(token), scopes=scopes, name=name, created_wall=time.time())
        await self._store.add_key(row)
        self._rows[id] = row
        return row, token

    async def remove(self, id: str) -> None:
        # First from memory: also with a failing database the key is refused from now on.
        row = self._rows.pop(id, None)
        self._used_wall.pop(id, None)
        if not await self._store.remove_key(id) and row is None:
            ids = ", ".join(it.id for it in self.rows() if it.name == id)
            cause = f"it names {ids}: give one id" if ids else "wa-agent key list has it not"
            raise errors.NotFound(f"cannot revoke {id!r}: {cause}")

    async def end_of(self, instance: InstanceId) -> list[KeyRow]:
        """The keys of an instance that is gone: none opens the next one of that name. A key for
        others as well stays for those."""
        scope = f"instance:{instance}"
        rows = [row for row in self.rows() if scope in row.scopes]
        for row in rows:
            await self.remove(row.id)
            if rest := tuple(other for other in row.scopes if other != scope):
                left = replace(row, scopes=rest)
                await self._store.add_key(left)
                self._rows[row.id] = left
        return rows

    def knows(self, id: str) -> bool:
        return id in self._rows

    def used_wall(self, id: str) -> float | None:
        """Unix time at which a request last showed the key; None: not since the agent's start."""
        return self._used_wall.get(id)

    def caller(self, token: str) -> Caller:
        match = _TOKEN.fullmatch(token)
        row = self._rows.get(match[1]) if match else None
        # Unknown ids are compared too, so that the time of the answer reveals nothing.
        if not hmac.compare_digest(_digest(token), row.hash if row else "0" * 64) or row is None:
            why = "it is unknown or revoked; wa-agent sends --key or WA_AGENT_KEY"
            raise errors.Unauthorized(f"cannot accept this key: {why}")
        self._used_wall[row.id] = time.time()
        level = max((LEVELS[s] for s in row.scopes if s in LEVELS), default=Right.OPEN)
        own = frozenset(InstanceId(s[9:]) for s in row.scopes if s.startswith("instance:"))
        return Caller(f"key {row.name or row.id}", level, own, key=row.id)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def identify(request: web.Request, section: ApiSection, ring: KeyRing) -> Caller:
    """Return the caller: by the key if one was sent; without one, by a trusted socket."""
    if (token := _token_of(request)) is not None:
        return ring.caller(token)
    if (connection := connection_of(request)).local:
        # The socket's mode is 0660: root, the agent's user and its group can open it.
        return Caller(connection.address, Right.ADMIN) if section.trust_socket else ANONYMOUS
    # A proxy on this machine forwards requests from anywhere; some say so by the name alone.
    proxied = any(name.lower().startswith(_OF_PROXIES) for name in request.headers)
    ends = connection.address, connection.here, host_name(request.host) or ""
    trusted = section.trust_loopback and all(map(is_loopback, ends)) and not proxied
    return Caller("loopback", Right.ADMIN) if trusted else ANONYMOUS


def host_name(host: str) -> str | None:
    """Return the name or address in a Host header, lower case, without port and brackets."""
    try:
        parts = urlsplit("//" + host)
        _ = parts.port  # ValueError where it is no port
    except ValueError:
        return None
    return parts.hostname if parts.netloc == host and parts.username is None else None


def _token_of(request: web.Request) -> str | None:
    if (header := request.headers.get("Authorization")) is not None:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            raise errors.Unauthorized("cannot accept this Authorization: it must be 'Bearer <key>'")
        return token.strip()
    # A page cannot set headers on a WebSocket, and logs do not show a subprotocol.
    for word in request.headers.get("Sec-WebSocket-Protocol", "").split(","):
        if word.strip().startswith("bearer."):
            return word.strip().removeprefix("bearer.")
    return None


def require(caller: Caller, right: Right, id: InstanceId | None, doing: str = "do this") -> None:
    if caller.may(right, id):
        return
    if caller.level is Right.OPEN and not caller.instances:
        cure = "send 'Authorization: Bearer KEY'; for wa-agent: set WA_AGENT_KEY"
        raise errors.Unauthorized(f"cannot do this without a key: {cure}")
    why = f"cannot {doing} with {caller.name}: it needs the scope {right.name.lower()}"
    raise errors.Forbidden(why, field="scopes")


# The audit log: changes, reads of codes to scan, refusals and failures, each with its caller.
#
# A line has the address and the request's name, as its answer has. Lines that a client could cause
# by the thousand are limited: the first is written, and the number of the others with the next one
# after a minute. They are counted by the connection's address: a client could name another one for
# each request.

REQUEST_ID = web.RequestKey("request_id", str)
VIA = web.RequestKey("via", str)
"""`machine NAME` of the fleet that forwarded the request."""
SHOWN = frozenset({"id", "name", "machine", "key", "group", "snapshot", "removed", "failed"})
"""Parameters of a path that an operator or this agent chose. Any other may hold a contact's number,
a message's id or a secret."""
CALLER = web.RequestKey("caller", Caller)
QUIET_SECONDS = 60.0
"""Seconds in which lines like the last one are counted only."""
MOST_SOURCES = 256
"""Sources that are counted at a time; beyond them the oldest is dropped."""
OPENS_A_SESSION = ("/api/instance/{id}/qr", "/api/instance/{id}/screenshot")
"""Routes whose answers let a reader pair, or read messages."""


@dataclass(slots=True)
class Audit:
    _said: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Source → time of its last line, and the number of lines that came since."""

    def answered(self, request: web.Request, status: int, more: str) -> None:
        """A change, a read of a code, a refusal: a missing or wrong key, a missing right, a foreign
        host or page. Writes neither query nor body, which may hold secrets."""
        caller, id = request.get(CALLER, ANONYMOUS), request.match_info.get("id")
        known = caller.name if caller != ANONYMOUS else ""
        who = address = _came_from(request)
        if known and known != address:
            who = f"{known} {'via' if VIA in request else 'from'} {address}"
        action = f"{request.method} {path_of(request)} → {status} {more}".rstrip()
        line = f"{action} (request {request.get(REQUEST_ID)})"
        if status in (401, 403):
            source = " ".join(filter(None, ("refused", _address(request), known)))
            self._limited(source, None, f"refused {who}: {line}", logging.WARNING)
        elif not known:
            return  # open routes change nothing
        elif request.method not in ("GET", "HEAD"):
            log.bound(Category.API, id, logfiles.AUDIT).info("%s", f"{who}: {line}")
        elif (route := route_of(request)) in OPENS_A_SESSION and status == 200:
            # A page asks every few seconds while it shows the code.
            self._limited(f"read {known} {id} {route}", id, f"{who}: {line}", logging.INFO)

    def failed(self, request: web.Request, error: errors.WaError) -> None:
        """Log an answer 5xx: each cause once for each address."""
        line = f"request {request.get(REQUEST_ID)} of {_came_from(request)}: {error}"
        self._limited(f"failed {_address(request)}: {error}", None, line, logging.WARNING)

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
        log.bound(Category.API, id, logfiles.AUDIT).log(level, "%s%s", line, others)


def route_of(request: web.Request) -> str:
    """Return the route's path without patterns, as the label of metrics; "" = no route has it."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else ""


def path_of(request: web.Request) -> str:
    """Return the path for a line of a log: the route's pattern, filled in where SHOWN allows."""
    path = route_of(request) or "an unknown path"
    for name in SHOWN & request.match_info.keys():
        path = path.replace(f"{{{name}}}", request.match_info[name])
    return path


def _address(request: web.Request) -> str:
    return request.get(VIA) or connection_of(request).address


def _came_from(request: web.Request) -> str:
    """Return the connection's address, with the one that a proxy gives for its client."""
    address, forwarded = _address(request), request.headers.get("X-Forwarded-For", "")
    return f"{address} for {forwarded[:80]!r}" if forwarded else address
