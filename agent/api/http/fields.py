"""The fields of requests: the same rows check them and describe them in OpenAPI."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from agent.core.model import ID_PATTERN, parse_instance_id
from agent.errors import InvalidRequest, TooLarge, WaError

STRING, BOOLEAN, INTEGER, NUMBER = "string", "boolean", "integer", "number"
OBJECT, STRINGS = "object", "array"

_KINDS: Mapping[str, tuple[type | tuple[type, ...], str, str, str]] = {
    STRING: (str, "a string", "Length", " characters"),
    BOOLEAN: (bool, "true or false", "", ""),
    INTEGER: (int, "a whole number", "imum", ""),
    NUMBER: ((int, float), "a number", "imum", ""),
    OBJECT: (dict, "an object", "", ""),
    STRINGS: (list, "a list of strings", "Items", " items"),
}
"""Type, words, and what is bounded: the ending of its name in OpenAPI, and its unit."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a body or of a query string."""

    name: str
    kind: str
    meaning: str
    required: bool = False
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    """The greatest number, or the longest string or list."""
    pattern: str = ""
    """Of the string, or of each item of the list."""

    def schema(self, *, query: bool = False) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": self.kind, "description": self.meaning}
        if self.kind == STRINGS:
            schema["items"] = {"type": STRING}
        words = schema["items"] if self.kind == STRINGS else schema
        if self.pattern:
            words["pattern"] = f"^(?:{self.pattern})$"
        if query and self.kind == INTEGER:  # as _from_text reads it: no sign, few digits
            schema["minimum"], schema["maximum"] = 0, 10**18 - 1
        if self.choices:
            words["enum"] = list(self.choices)
        unit = _KINDS[self.kind][2]
        if self.least is not None:
            schema["min" + unit] = self.least
        if self.most is not None:
            schema["max" + unit] = self.most
        return schema


CONFIRM_PASSKEY = Field(
    "confirm_passkey",
    STRING,
    "the instance's id, where its account needs a passkey to link again: without it such a pairing"
    " is not ended",
    most=48,
)


def read_body(body: Mapping[str, Any], fields: Sequence[Field]) -> dict[str, Any]:
    """The given fields; an unknown, missing or wrong field raises with its name."""
    rows = {field.name: field for field in fields}
    for name in body:
        if name not in rows:
            raise _wrong(name, "unknown field; known: " + (", ".join(rows) or "none"))
    for field in rows.values():
        if field.required and field.name not in body:
            raise _wrong(field.name, "it is missing")
    return {name: _check(rows[name], value) for name, value in body.items()}


def read_query(request: web.Request, fields: Sequence[Field]) -> dict[str, Any]:
    """The same for a query string; a list is given with commas or by repeating its name."""
    kinds = {field.name: field.kind for field in fields}
    body: dict[str, Any] = {}
    for name in request.rel_url.query:
        texts, kind = request.rel_url.query.getall(name), kinds.get(name, "")
        if kind == STRINGS:
            body[name] = [word for text in texts for word in text.split(",") if word]
        elif len(texts) > 1:
            raise _wrong(name, "it is given twice")
        else:
            body[name] = _from_text(kind, texts[0])
    return read_body(body, fields)


def _from_text(kind: str, text: str) -> Any:
    if kind == BOOLEAN:
        return {"true": True, "1": True, "false": False, "0": False}.get(text, text)
    # int() alone would take "1_0", " 1" and Arabic digits.
    if kind == INTEGER and text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    return text


def _check(field: Field, value: Any) -> Any:
    kind, words, _, unit = _KINDS[field.kind]
    right = isinstance(value, kind) and (field.kind == BOOLEAN or not isinstance(value, bool))
    given = value if right and field.kind == STRINGS else [value]
    if not right or (field.kind == STRINGS and not all(isinstance(item, str) for item in given)):
        raise _wrong(field.name, f"it must be {words}")
    if field.choices and any(item not in field.choices for item in given):
        raise _wrong(field.name, "it must be one of " + ", ".join(field.choices))
    size = len(value) if unit else value
    if field.least is not None and size < field.least:
        raise _wrong(field.name, f"it must be at least {field.least:g}{unit}")
    if field.most is not None and size > field.most:
        raise _wrong(field.name, f"it must be at most {field.most:g}{unit}")
    for item in given if field.pattern else ():
        if field.pattern == ID_PATTERN:
            parse_instance_id(item)
        elif not re.fullmatch(field.pattern, item):
            raise _wrong(field.name, f"it must be: {field.meaning}")
    return value


def _wrong(name: str, cause: str) -> InvalidRequest:
    shown = repr(name)[:80]
    return InvalidRequest(f"cannot use the field {shown}: {cause}", field=name[:80])


# Reads a request's body: bounded in time, size and depth, strictly JSON.


DEEPEST = 32


class TooSlow(WaError):
    """The client did not finish its request in time."""

    code = "too_slow"
    http = 408
    exit_status = 75


class UnsupportedType(WaError):
    code = "unsupported_type"
    http = 415
    exit_status = 2


async def read_json(request: web.Request, limit: int, seconds: float) -> dict[str, Any]:
    """The body as an object; an empty body is an empty object."""
    raw = await _read(request, limit, seconds)
    if not raw.strip():
        return {}
    # A browser sends other types to foreign servers without a preflight request.
    if request.content_type != "application/json":
        raise UnsupportedType(
            "cannot read the body: its Content-Type must be application/json", field="body"
        )
    return parse_object(raw)


async def invite(request: web.Request) -> None:
    """Tell a client that waits for it to send its body."""
    if "Expect" in request.headers:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


async def _read(request: web.Request, limit: int, seconds: float) -> bytes:
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise UnsupportedType(
            "cannot read the body: the agent reads no compressed bodies", field="body"
        )
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
    except web.RequestPayloadError as error:
        raise InvalidRequest("cannot read the body: it ended early", field="body") from error


def parse_object(raw: bytes) -> dict[str, Any]:
    """One JSON object, or InvalidRequest; never any other exception."""
    try:
        parsed = msgspec.json.decode(raw)
    except ValueError as error:
        raise _bad(str(error)[:200]) from None
    except RecursionError:
        raise _bad("it is nested too deeply") from None
    if not isinstance(parsed, dict):
        raise InvalidRequest(
            "cannot use the body: it must be a JSON object", field="body", code="invalid_json"
        )
    _check_values(parsed)
    return parsed


def _check_values(parsed: Any) -> None:
    """Refuses valid JSON that other programs cannot take: depth, great numbers, NULs."""
    waiting: list[tuple[Any, int]] = [(parsed, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEEPEST:
            raise _bad("it is nested too deeply")
        if isinstance(value, dict):
            waiting.extend((inner, depth + 1) for inner in value.values())
            waiting.extend((name, depth) for name in value)
        elif isinstance(value, list):
            waiting.extend((inner, depth + 1) for inner in value)
        elif isinstance(value, int | float) and not abs(value) <= 1 << 63:
            raise _bad("a number is too large")
        elif isinstance(value, str) and "\0" in value:
            raise _bad("a string holds a NUL")


def _bad(cause: str) -> InvalidRequest:
    return InvalidRequest(
        f"cannot read the body as JSON: {cause}", field="body", code="invalid_json"
    )
