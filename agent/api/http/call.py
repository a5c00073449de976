"""A route with the fields that it takes, which check a request and describe it in OpenAPI; and a
request that it admitted: the input of a handler."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from agent.api.http.auth import CALLER, Audit, Caller, KeyRing, Right
from agent.config.config import ApiSection
from agent.core.session import Session
from agent.core.setting import choice_fault
from agent.core.troubles import Trouble, Windows
from agent.core.words import ID_PATTERN, InstanceId, parse_instance_id
from agent.deliver.bus import Subscription
from agent.errors import InvalidRequest, TooLarge, TryLater, WaError
from agent.messages.reader import Reader
from agent.messages.sending import Sending
from agent.metrics.exporter import Exporter
from agent.moving.archives import Archives
from agent.supervise.assemble import Supervisor

if TYPE_CHECKING:
    from agent.webhooks.part import Webhooks  # whose routes stand beside it

_KINDS: Mapping[type, tuple[str, str, str, str]] = {
    str: ("string", "a string", "Length", " characters"),
    bool: ("boolean", "true or false", "", ""),
    int: ("integer", "a whole number", "imum", ""),
    float: ("number", "a number", "imum", ""),
    dict: ("object", "an object", "", ""),
    list: ("array", "a list of strings", "Items", " items"),
}
"""Type of JSON, words, and what is bounded: the ending of its name in OpenAPI, and its unit."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a body or of a query string."""

    name: str
    kind: type
    meaning: str
    required: bool = False
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    """The greatest number, or the longest string or list."""
    pattern: str = ""
    """Pattern of the string, or of each item of the list."""

    def schema(self) -> dict[str, Any]:
        kind, _, unit, _ = _KINDS[self.kind]
        pattern = f"^(?:{self.pattern})$" if self.pattern else None
        words = {"pattern": pattern, "enum": list(self.choices) or None}
        bounds = {"min" + unit: self.least, "max" + unit: self.most}
        inner = {"items": _given({"type": "string", **words})} if self.kind is list else words
        return _given({"type": kind, "description": self.meaning, **bounds, **inner})


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


_PASSKEY = (
    "the instance's id, where its account needs a passkey to link again: without it such a pairing"
    " is not ended"
)
CONFIRM_PASSKEY = Field("confirm_passkey", str, _PASSKEY, most=48)


def read_body(body: Mapping[str, Any], fields: tuple[Field, ...]) -> dict[str, Any]:
    """Return the given fields; an unknown, missing or wrong field raises with its name."""
    rows = {field.name: field for field in fields}
    for name in body:
        if name not in rows:
            raise _wrong(name, "unknown field; known: " + (", ".join(rows) or "none"))
    for row in rows.values():
        if row.required and row.name not in body:
            raise _wrong(row.name, "it is missing")
    return {name: _check(rows[name], value) for name, value in body.items()}


def read_query(request: web.Request, fields: tuple[Field, ...]) -> dict[str, Any]:
    """Return the fields of a query string; a list has commas, or its name is repeated."""
    kinds = {field.name: field.kind for field in fields}
    body: dict[str, Any] = {}
    for name in request.rel_url.query:
        texts, kind = request.rel_url.query.getall(name), kinds.get(name)
        if kind is list:
            body[name] = [word for text in texts for word in text.split(",") if word]
        elif len(texts) > 1:
            raise _wrong(name, "it is given twice")
        else:
            body[name] = _from_text(kind, texts[0])
    return read_body(body, fields)


def _from_text(kind: type | None, text: str) -> Any:
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(text, text)
    # int() alone would take "1_0", " 1" and Arabic digits.
    if kind is int and re.fullmatch("-?[0-9]{1,18}", text):
        return int(text)
    return text


def _check(field: Field, value: Any) -> Any:
    _, words, _, unit = _KINDS[field.kind]
    right = type(value) is field.kind or (field.kind is float and type(value) is int)
    given = value if right and field.kind is list else [value]
    if not right or (field.kind is list and not all(isinstance(item, str) for item in given)):
        raise _wrong(field.name, f"it must be {words}")
    for item in given if field.choices else ():
        if item not in field.choices:
            raise _wrong(field.name, choice_fault(item, field.choices))
    size = len(value) if unit else value
    if (field.least is not None or field.kind is int) and size < (least := field.least or 0):
        raise _wrong(field.name, f"it must be at least {least:g}{unit}")
    if field.most is not None and size > field.most:
        raise _wrong(field.name, f"it must be at most {field.most:.15g}{unit}")
    for item in given if field.pattern else ():
        if field.pattern == ID_PATTERN:
            parse_instance_id(item)
        elif not re.fullmatch(field.pattern, item):
            raise _wrong(field.name, f"it must be: {field.meaning}")
    return value


def _wrong(name: str, cause: str) -> InvalidRequest:
    return InvalidRequest(f"cannot use the field {repr(name)[:80]}: {cause}", field=name[:80])


# Reads a request's body: bounded in time, size and depth, strictly JSON.


DEEPEST = 32


class TooSlow(WaError):
    """The client did not finish its request in time."""

    code, http = "too_slow", 408


class UnsupportedType(WaError):
    code, http = "unsupported_type", 415


async def read_json(request: web.Request, limit: int, seconds: float) -> dict[str, Any]:
    """Read the body as an object; an empty body is an empty object."""
    raw = await _read(request, limit, seconds)
    # A browser sends other types to foreign servers without a preflight request.
    if raw.strip() and request.content_type != "application/json":
        cause = "its Content-Type must be application/json"
        raise UnsupportedType(f"cannot read the body: {cause}", field="body")
    return parse_object(raw) if raw.strip() else {}


async def invite(request: web.Request) -> None:
    """Tell a client that waits for it to send its body."""
    if "Expect" in request.headers:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


async def _read(request: web.Request, limit: int, seconds: float) -> bytes:
    if request.headers.get("Content-Encoding", "identity") != "identity":
        cause = "the agent reads no compressed bodies"
        raise UnsupportedType(f"cannot read the body: {cause}", field="body")
    too_large = TooLarge(f"cannot read the body: it may have at most {limit} bytes", field="body")
    if (request.content_length or 0) > limit:
        raise too_large
    try:
        async with asyncio.timeout(seconds):
            await invite(request)
            # A clone: client_max_size belongs to the application.
            return await request.clone(client_max_size=limit).read()
    except TimeoutError as error:
        raise TooSlow(f"cannot read the body: it did not come in {seconds:g} seconds") from error
    except web.HTTPRequestEntityTooLarge as error:
        raise too_large from error
    except (web.RequestPayloadError, ConnectionError) as error:
        raise InvalidRequest("cannot read the body: it ended early", field="body") from error


def parse_object(raw: bytes) -> dict[str, Any]:
    """Return one JSON object, or raise InvalidRequest; never any other exception."""
    try:
        parsed = msgspec.json.decode(raw)
    except ValueError as error:
        told = "a string is no UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        if "truncated" in told and re.search(rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])", raw):
            told = "a string holds half a character: a surrogate without its other half"
        cause, _, at = told[:200].partition(" (byte ")
        lines = raw[: int(at.rstrip(")") or 0)].decode(errors="replace").split("\n")
        place = f" (line {len(lines)}, column {len(lines[-1]) + 1})" if at else ""
        raise _bad(cause + place) from None
    except RecursionError:
        raise _bad("it is nested too deeply") from None
    if not isinstance(parsed, dict):
        raise _bad("it must be a JSON object", "use the body")
    for fault in _faults(parsed, 1):
        raise _bad(fault)
    return parsed


def _faults(value: Any, depth: int) -> Iterator[str]:
    """Yield why other programs cannot take valid JSON: depth, great numbers, NULs."""
    inner = [*value, *value.values()] if isinstance(value, dict) else value
    if depth > DEEPEST:
        yield "it is nested too deeply"
    elif isinstance(inner, list):
        for one in inner:
            yield from _faults(one, depth + 1)
    elif isinstance(value, int | float) and not abs(value) <= 1 << 63:
        yield "a number is too large"
    elif isinstance(value, str) and "\0" in value:
        yield "a string holds a NUL"


def _bad(cause: str, doing: str = "read the body as JSON") -> InvalidRequest:
    return InvalidRequest(f"cannot {doing}: {cause}", field="body", code="invalid_json")


# The table's rows, and a request.


ANSWER_WITHIN = 10
_WAIT = (
    f"seconds after which it is answered, default {ANSWER_WITHIN}: 202 where the work goes on, 503"
    " where the answer is what was asked for"
)
WAIT = (Field("wait", int, _WAIT, most=300),)
LARGE_AT_ONCE = 4
REVOKED = "its key was revoked"
_SLOWEST = 256 * 1024
"""Bytes per second that a client must send of a long body."""

ARCHIVES = ("application/gzip", "application/octet-stream")


@dataclass(frozen=True, slots=True)
class Parts:
    section: ApiSection
    supervisor: Supervisor
    ring: KeyRing
    metrics: Exporter
    reader: Reader
    sending: Sending
    webhooks: "Webhooks"
    archives: Archives
    troubles: Callable[[], Collection[Trouble]]
    """Returns the troubles that have begun."""
    windows: Windows
    """How much the counters of sessions rose lately."""
    places: Mapping[str, str]
    """Paths of the agent: its state, its sessions, the agent.toml that it read."""
    reload: asyncio.Event = field(default_factory=asyncio.Event)
    """Set to let the agent read agent.toml again."""
    audit: Audit = field(default_factory=Audit)
    forward: Callable[[str, web.Request], Awaitable[web.StreamResponse | None]] | None = None
    """Returns the answer of the machine of the fleet that owns the session; None: this one does."""
    not_listening: dict[str, str] = field(default_factory=dict)
    """HOST:PORT that another program still uses → the error."""
    large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LARGE_AT_ONCE))
    """Places for bodies longer than `body_limit` in memory."""
    listeners: dict[Subscription, str] = field(default_factory=dict)
    """Subscription of a WebSocket → id of its key; "" = it showed none."""

    def end_listeners_of(self, key: str) -> None:
        """End the WebSockets that were opened with that key."""
        for subscription, own in self.listeners.items():
            if own == key:
                subscription.end(REVOKED)


PATH_PARAMETER = re.compile(r"\{(\w+)(?::([^{}]*(?:\{[^{}]*\}[^{}]*)*))?\}")


def plain_path(path: str) -> str:
    """Return the path of a route without patterns; also the `route` label of the metrics."""
    return PATH_PARAMETER.sub(r"{\1}", path)


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table: its handler, the right it needs, its fields and statuses."""

    method: str
    path: str
    right: Right
    run: "Handler"
    summary: str
    body: "Body" = None
    """Fields of the body. None: it is ignored, or the archive of a POST; (): it must be empty."""
    large: bool = False
    """True if the handler reads the body, which may be longer than `body_limit`."""
    query: tuple[Field, ...] = ()
    answers: tuple[int, ...] = (200,)
    """Statuses of answers; the first one is that of an answer in JSON."""
    made: str = ""
    """Path of what a 201 made; fields of the answer stand in braces."""
    timely: bool = False
    """True if it is answered after `?wait=` seconds whatever a worker or a server takes: 202 where
    the statuses have it, else 503. Other routes ask neither, or keep a time of their own."""
    shows: Mapping[str, Any] | None = None
    """Schema of the answer in JSON, for OpenAPI; None: words describe it."""


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
    def wait(self) -> float:
        """Seconds after which the request is answered."""
        return float(self.query.get("wait", ANSWER_WITHIN))

    @property
    def view(self) -> Session:
        """The instance of the path; NotFound if there is none."""
        # The application refuses an id that is not well-formed.
        return self.supervisor.view(InstanceId(self.request.match_info["id"]))

    @property
    def id(self) -> InstanceId:
        return self.view.instance.id

    @property
    def engine(self) -> str:
        return self.view.instance.engine

    @property
    def confirmed(self) -> dict[str, Any]:
        """The body's confirmations that a pairing may end."""
        passkey = self.body.get("confirm_passkey", "")
        return {"confirmed": self.body.get("confirm", False), "passkey": passkey}

    @asynccontextmanager
    async def large_body(self) -> AsyncIterator[dict[str, Any]]:
        """A body that may be longer than `body_limit` by a file in base64; few of them are in
        memory at a time."""
        section, size = self.parts.section, self.request.content_length
        most = section.media_limit * 4 // 3 + section.body_limit
        if size is not None and size <= section.body_limit:
            yield await read_json(self.request, section.body_limit, section.body_timeout)
            return
        try:
            async with asyncio.timeout(section.body_timeout):
                await self.parts.large.acquire()
        except TimeoutError as error:
            why = "cannot read the body: too many long bodies are in work already; try again"
            raise TryLater(why, code="busy") from error
        try:
            seconds = section.body_timeout + (size or most) / _SLOWEST
            yield await read_json(self.request, most, seconds)
        finally:
            self.parts.large.release()


async def read_call(request: web.Request, route: Route, parts: Parts) -> Call:
    """Read a request's query, and its body unless the handler reads that."""
    query, body, section = read_query(request, route.query), {}, parts.section
    if route.body is not None and not route.large:
        given = await read_json(request, section.body_limit, section.body_timeout)
        body = read_body(given, route.body)
    return Call(request, route, parts, request[CALLER], query, body)


async def archive_of(call: Call) -> AsyncIterator[bytes]:
    """Yield a body that says that it is an archive in pieces, each within `body_timeout`."""
    if call.request.content_type not in ARCHIVES:
        cause = f"its Content-Type must be {ARCHIVES[0]}"
        raise UnsupportedType(f"cannot read the archive: {cause}", field="body")
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
        except (web.RequestPayloadError, ConnectionError) as error:
            raise InvalidRequest("cannot read the archive: it ended early", field="body") from error
        if not piece:
            return
        yield piece


Json = Mapping[str, Any]
Answer = Json | tuple[int, Json] | web.StreamResponse
"""An answer of a handler, with its status unless that is the first one of the route."""
Handler = Callable[[Call], Awaitable[Answer]]
Body = tuple[Field, ...] | None


def route(at: str, right: Right, run: Handler, body: Body = None, **more: Any) -> Route:
    """Make a route. `at`: method and path. The handler's docstring begins with the summary."""
    method, _, path = at.partition(" ")
    summary = " ".join((run.__doc__ or "").partition("\n\n")[0].split()).rstrip(".")
    return Route(method, path, right, run, summary, body, **more)


def look_at(id: str) -> Json:
    path = f"/api/instance/{id}"
    return {"state": path, "qr": f"{path}/qr", "why": f"wa-agent why {id}"}
