"""The shape of every answer: JSON, one envelope for all errors, the same headers."""

import json
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

from agent.errors import Unauthorized, WaError

HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Server": "wa-agent",
}


def new_request_id() -> str:
    return secrets.token_hex(8)


def json_answer(content: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=json.dumps(content, separators=(",", ":"), allow_nan=False).encode() + b"\n",
        status=status,
        content_type="application/json",
    )


def created(content: Any, location: str) -> web.Response:
    answer = json_answer(content, 201)
    answer.headers["Location"] = location
    return answer


def error_body(code: str, message: str, field: str | None, request_id: str) -> dict[str, Any]:
    return {"error": code, "message": message, "field": field, "request": request_id}


def error_answer(error: WaError, request_id: str) -> web.Response:
    answer = json_answer(
        error_body(error.code, str(error), error.field, request_id), status=error.http
    )
    if isinstance(error, Unauthorized):
        answer.headers["WWW-Authenticate"] = 'Bearer realm="wa-agent"'
    if error.http == HTTPStatus.SERVICE_UNAVAILABLE:
        answer.headers["Retry-After"] = "1"
    return answer


_LIBRARY = {
    404: ("unknown_route", "cannot find this address; /openapi.json lists all routes"),
    405: ("method_not_allowed", "cannot use this method here"),
    413: ("too_large", "cannot read the body: it is too large"),
    417: ("invalid_request", "cannot meet what the Expect header asks for"),
}


def library_error_answer(
    status: int, request_id: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """The envelope around an error of the HTTP library."""
    other = "internal" if status >= 500 else "invalid_request"
    phrase = f"cannot answer: {HTTPStatus(status).phrase.lower()}"
    code, words = _LIBRARY.get(status, (other, phrase))
    answer = json_answer(error_body(code, words, None, request_id), status=status)
    if headers and "Allow" in headers:
        answer.headers["Allow"] = headers["Allow"]
    return answer
