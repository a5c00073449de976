"""/openapi.json: the description of the interface, made from the route table."""

import json
import re
from collections.abc import Iterator
from functools import cache
from http import HTTPStatus
from typing import Any

from aiohttp import web

from agent import VERSION
from agent.api.http.auth import Right
from agent.api.http.call import PATH_PARAMETER, Call, Route, plain_path
from agent.api.http.fields import Field
from agent.core.model import ID_PATTERN

_RIGHTS = {
    Right.OPEN: "No key needed",
    Right.SOME: "Any key; the answer is limited to its instances",
    Right.READ: "Scope read",
    Right.OPERATE: "Scope operate",
    Right.ADMIN: "Scope admin",
}
_ERROR = {
    "type": "object",
    "required": ["error", "message", "field", "request"],
    "properties": {
        "error": {"type": "string", "description": "stable code"},
        "message": {"type": "string", "description": "one sentence"},
        "field": {"type": ["string", "null"], "description": "the wrong field of the request"},
        "request": {"type": "string", "description": "the request's name, also in the log"},
    },
}
_INSTANCE = {
    "type": "object",
    "required": ["id", "wait_reason", "wait_sentence"],
    "properties": {
        "id": {"type": "string", "pattern": f"^{ID_PATTERN}$"},
        "wait_reason": {
            "type": "string",
            "description": 'why it must wait, as a stable code; "" = it need not',
        },
        "wait_sentence": {"type": "string", "description": "the same for people"},
    },
}
"""Of the many fields of a session those that programs ask for most."""


async def show_openapi(_call: Call) -> web.Response:
    return web.Response(body=_described(), content_type="application/json")


@cache
def _described() -> bytes:
    from agent.api.routes import ROUTES  # which has this one

    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(plain_path(route.path), {})[route.method.lower()] = _operation(route)
    described = {
        "openapi": "3.1.0",
        "info": {
            "title": "wa-agent",
            "version": VERSION,
            "description": "Keeps WhatsApp sessions alive on this machine.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _ERROR, "Instance": _INSTANCE},
        },
    }
    return json.dumps(described, separators=(",", ":")).encode() + b"\n"


def _needs(route: Route) -> str:
    own = route.right in (Right.READ, Right.OPERATE) and "{id}" in route.path
    return _RIGHTS[route.right] + (", or instance:ID for that one." if own else ".")


def _operation(route: Route) -> dict[str, Any]:
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": f"^{pattern or ID_PATTERN}$"},
        }
        for name, pattern in PATH_PARAMETER.findall(route.path)
    ]
    parameters += [
        {"name": f.name, "in": "query", "required": f.required, "schema": f.schema(query=True)}
        for f in route.query
    ]
    operation: dict[str, Any] = {
        "summary": route.summary,
        "description": _needs(route),
        "operationId": route.method.lower() + re.sub(r"\W+", "_", plain_path(route.path)),
        "parameters": parameters,
        "responses": _responses(route),
    }
    if route.right is not Right.OPEN:
        operation["security"] = [{"key": []}]
    if route.takes_archive:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"format": "binary"}}},
        }
    if route.body is not None:
        operation["requestBody"] = {
            "required": any(f.required for f in route.body),
            "content": {"application/json": {"schema": _object(route.body)}},
        }
    return operation


def _object(rows: tuple[Field, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {f.name: f.schema() for f in rows},
        "required": [f.name for f in rows if f.required],
    }


def _responses(route: Route) -> dict[str, Any]:
    refusal = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    found: dict[str, Any] = {
        str(status): {"description": HTTPStatus(status).phrase, "content": refusal}
        for status in _refusals(route)
    }
    found |= {str(status): {"description": HTTPStatus(status).phrase} for status in route.answers}
    if route.shows is not None:
        found[str(route.answers[0])]["content"] = {"application/json": {"schema": route.shows}}
    return found


def _refusals(route: Route) -> Iterator[int]:
    """Each by its status: a `default` would allow every answer."""
    yield from (400, 403, 500, 503, 507)
    yield from () if route.right is Right.OPEN else (401,)
    if "{" in route.path:
        yield 404
    if route.body is not None or route.takes_archive:
        yield from (408, 413, 415)
    if "/qr" in route.path:
        yield 406
    if route.method != "GET" or "{" in route.path:
        yield from (409, 502)
