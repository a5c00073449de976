"""Reads a request's body: bounded in time, size and depth, strictly JSON. The library alone answers
500 to broken JSON and to 200,000 nested arrays."""

import asyncio
import json
from typing import Any

from aiohttp import web

from agent.errors import InvalidRequest, TooLarge, WaError

DEEPEST = 32
_GREATEST = float(1 << 63)
_RAW = web.RequestKey("raw", bytes)
"""The bytes of a body that was read already: they come once."""
_AT_ONCE = 1 << 20
"""Longer bodies are parsed in a thread."""


class TooSlow(WaError):
    """The client did not finish its request in time."""

    code = "too_slow"
    http = 408
    exit_status = 75


class UnsupportedType(WaError):
    code = "unsupported_type"
    http = 415
    exit_status = 2


async def read_json(request: web.Request, *, limit: int, seconds: float) -> dict[str, Any]:
    """The body as an object; an empty body is an empty object."""
    if (raw := request.get(_RAW)) is None:
        raw = request[_RAW] = await read_bytes(request, limit=limit, seconds=seconds)
    if not raw.strip():
        return {}
    # A browser sends other types to foreign servers without a preflight request.
    if request.content_type != "application/json":
        raise UnsupportedType(
            "cannot read the body: its Content-Type must be application/json", field="body"
        )
    if len(raw) > _AT_ONCE:
        return await asyncio.to_thread(parse_object, raw)
    return parse_object(raw)


def forget_body(request: web.Request) -> None:
    """Its handler has read it, and may go on for long: its memory is free."""
    if _RAW in request:
        request[_RAW] = b""


async def invite(request: web.Request) -> None:
    """Tell a client that waits for it to send its body."""
    if "Expect" in request.headers:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


async def read_bytes(request: web.Request, *, limit: int, seconds: float) -> bytes:
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise UnsupportedType(
            "cannot read the body: the agent reads no compressed bodies", field="body"
        )
    if (request.content_length or 0) > limit:
        raise TooLarge(f"cannot read the body: it may have at most {limit} bytes", field="body")
    try:
        async with asyncio.timeout(seconds):
            await invite(request)
            # A clone: client_max_size belongs to the application.
            return await request.clone(client_max_size=limit).read()
    except TimeoutError as error:
        raise TooSlow(f"cannot read the body: it did not come in {seconds:g} seconds") from error
    except web.HTTPRequestEntityTooLarge as error:
        raise TooLarge(
            f"cannot read the body: it may have at most {limit} bytes", field="body"
        ) from error
    except web.RequestPayloadError as error:
        raise InvalidRequest("cannot read the body: it ended early", field="body") from error


def parse_object(raw: bytes) -> dict[str, Any]:
    """One JSON object, or InvalidRequest; never any other exception."""
    try:
        parsed = json.loads(
            raw.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_twins
        )
    except (ValueError, RecursionError) as error:
        cause = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidRequest(
            f"cannot read the body as JSON: {cause[:200]}", field="body", code="invalid_json"
        ) from None
    if not isinstance(parsed, dict):
        raise InvalidRequest(
            "cannot use the body: it must be a JSON object", field="body", code="invalid_json"
        )
    _check_values(parsed)
    return parsed


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON number")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has the same name twice")
    return members


def _check_values(parsed: Any) -> None:
    """Refuses valid JSON that other programs cannot take: depth, infinities, half characters."""
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
        elif isinstance(value, int | float) and not abs(value) <= _GREATEST:
            raise _bad("a number is too large")
        elif isinstance(value, str) and not _is_text(value):
            raise _bad("a string holds half a character or a NUL")


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def _bad(cause: str) -> InvalidRequest:
    return InvalidRequest(
        f"cannot read the body as JSON: {cause}", field="body", code="invalid_json"
    )
