"""The pages for people: self-contained, no request leaves this server; and /openapi.json, the
description of the interface, made from the route table.

Each file is packed once and sent with its checksum as ETag: a page that is loaded again over a slow
line asks whether its files changed, and gets none of those that did not."""

import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from aiohttp import web

from agent import VERSION
from agent.api.http.auth import Right
from agent.api.http.call import PATH_PARAMETER, Call, Field, Route, plain_path
from agent.core.words import ID_PATTERN

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
            "schemas": {"Error": _ERROR},
        },
    }
    return json.dumps(described, separators=(",", ":")).encode() + b"\n"


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
        {"name": f.name, "in": "query", "required": f.required, "schema": f.schema()}
        for f in route.query
    ]
    own = route.right in (Right.READ, Right.OPERATE) and "{id}" in route.path
    needs = _RIGHTS[route.right] + (", or instance:ID for that one." if own else ".")
    operation: dict[str, Any] = {
        "summary": route.summary,
        "description": needs,
        "operationId": route.method.lower() + re.sub(r"\W+", "_", plain_path(route.path)),
        "parameters": parameters,
        "responses": _responses(route),
    }
    if route.right is not Right.OPEN:
        operation["security"] = [{"key": []}]
    if route.method == "POST" and route.body is None:
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
    yield from (400, 403, 429, 500, 503, 507)
    yield from () if route.right is Right.OPEN else (401,)
    if "{" in route.path:
        yield 404
    if route.body is not None or route.method == "POST":
        yield from (408, 413, 415)
    if "/qr" in route.path:
        yield 406
    if route.method != "GET" or "{" in route.path:
        yield from (409, 502)


CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FILES = {file.name: file for file in (Path(__file__).parent / "files").iterdir()}
PARTS = tuple(sorted(name for name in FILES if name.endswith((".js", ".css", ".svg"))))
"""The files of the pages, each at /page/NAME."""

_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}


class Page:
    """One file as it is sent: the handler of its route."""

    def __init__(self, name: str) -> None:
        body = FILES[name].read_bytes()
        self._packed = gzip.compress(body, mtime=0)
        self._type = _TYPES[name.rpartition(".")[2]]
        self._tag = hashlib.sha256(body).hexdigest()[:16]

    async def __call__(self, call: Call) -> web.Response:
        request = call.request
        if any(tag.value in (self._tag, "*") for tag in request.if_none_match or ()):
            answer = web.Response(status=304)
        else:
            packs = "gzip" in request.headers.get("Accept-Encoding", "")
            body = self._packed if packs else gzip.decompress(self._packed)
            answer = web.Response(body=body, content_type=self._type, charset="utf-8")
            if packs:
                answer.headers["Content-Encoding"] = "gzip"
        answer.etag = self._tag
        answer.headers["Vary"] = "Accept-Encoding"
        answer.headers["Cache-Control"] = "no-cache"  # kept, and asked about each time
        answer.headers["Content-Security-Policy"] = CSP
        answer.headers["X-Frame-Options"] = "DENY"
        return answer


ROUTES = (
    Route("GET", "/openapi.json", Right.OPEN, show_openapi, "This description"),
    Route("GET", "/docs", Right.OPEN, Page("docs.html"), "The interface, for people"),
    Route("GET", "/", Right.OPEN, Page("dashboard.html"), "The dashboard, for people"),
    *(Route("GET", f"/page/{name}", Right.OPEN, Page(name), "Part of a page") for name in PARTS),
)
