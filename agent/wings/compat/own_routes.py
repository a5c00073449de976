"""Asks one of the agent's own routes for a request that came in another form."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from aiohttp import web

from agent.api.http.call import Call, Json, Route, plain_path
from agent.api.routes import ROUTES
from agent.errors import Refused

INSTANCE = "/api/instance/{id}"


@cache
def _routes() -> Mapping[tuple[str, str], Route]:
    return {(route.method, plain_path(route.path)): route for route in ROUTES}


def as_own(
    call: Call,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    query: Mapping[str, Any] | None = None,
) -> Call:
    """The call that the route of that path would get; its right was asked for before."""
    route = _routes().get((method, INSTANCE + path))
    if route is None:
        raise Refused(f"cannot do this: the agent has no {method} {path}", code="not_supported")
    return replace(call, route=route, given=dict(body or {}), query=dict(query or {}))


async def ask(
    call: Call,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    query: Mapping[str, Any] | None = None,
) -> Json:
    asked = as_own(call, method, path, body, query)
    return read_answer(await asked.route.run(asked))


def read_answer(answer: Json | web.StreamResponse) -> Json:
    if isinstance(answer, web.Response):
        content = json.loads(bytes(answer.body or b"{}"))  # type: ignore[arg-type]
        return content if isinstance(content, dict) else {}
    assert not isinstance(answer, web.StreamResponse)
    return answer
