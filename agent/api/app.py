"""The application: each route of the table, behind the checks that every request passes, and within
a time. An order goes on after its answer; of a question the answer is lost."""

import time
from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import web
from aiohttp.typedefs import Middleware

from agent.api.http.audit import CALLER, REQUEST_ID, ROUTE, path_of
from agent.api.http.auth import has_rights, identify, require
from agent.api.http.call import (
    ANSWER_WITHIN,
    Call,
    Json,
    Parts,
    Route,
    look_at,
    plain_path,
)
from agent.api.http.connection import Connection
from agent.api.http.envelope import (
    HEADERS,
    error_answer,
    json_answer,
    library_error_answer,
    new_request_id,
)
from agent.api.http.fields import read_query
from agent.api.http.guard import check_entrance
from agent.api.present import show_instance
from agent.api.routes import ROUTES
from agent.core.model import Category, InstanceId, parse_instance_id
from agent.errors import NotYet, TryLater, WaError
from agent.log import bound
from agent.supervise.repairs import GRACE, in_time

log = bound(Category.API)

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(parts: Parts, allowed_hosts: frozenset[str]) -> web.Application:
    app = web.Application(
        client_max_size=parts.section.body_limit, middlewares=[_front_door(parts, allowed_hosts)]
    )
    parts.metrics.http.expect((route.method, plain_path(route.path)) for route in ROUTES)
    for route in ROUTES:
        for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
            run = partial(_answer, route, parts)
            app.router.add_route(method, route.path, run, expect_handler=_expect)
    return app


async def _answer(route: Route, parts: Parts, request: web.Request) -> web.StreamResponse:
    request[ROUTE] = plain_path(route.path)
    id = parse_instance_id(request.match_info["id"]) if "id" in request.match_info else None
    caller = request[CALLER] = identify(request, parts.section, parts.ring)
    require(caller, route.right, id)
    call = Call(request, route, parts, caller, read_query(request, route.query))
    if route.body == ():
        await call.body()
    answered = await run_in_time(call)
    if isinstance(answered, web.StreamResponse):
        return answered
    return json_answer(answered, route.answers[0])


def _front_door(parts: Parts, allowed_hosts: frozenset[str]) -> Middleware:
    audit = parts.audit

    @web.middleware
    async def answer(request: web.Request, handler: Answering) -> web.StreamResponse:
        request_id, not_yet = new_request_id(), False
        request[REQUEST_ID] = request_id
        with parts.metrics.http.observe(request.method) as seen:
            try:
                if isinstance(request.protocol, Connection):
                    righted = has_rights(request, parts.section, parts.ring)
                    await request.protocol.admit(righted=righted)
                check_entrance(request, allowed_hosts)
                answered = await handler(request)
                audit.answered(request, answered.status, answered.headers.get("Location", ""))
            except WaError as error:
                not_yet = isinstance(error, NotYet)
                audit.answered(request, error.http, error.code)
                if error.http >= 500 and not not_yet:
                    audit.failed(request, error)
                answered = error_answer(error, request_id)
            except web.HTTPException as error:
                answered = library_error_answer(error.status, request_id, error.headers)
            except ConnectionError:
                raise  # the client is gone
            except Exception:
                what = f"{request.method} {path_of(request)}"
                log.exception("request %s failed: %s", request_id, what)
                answered = library_error_answer(500, request_id)
            seen.route, seen.code = request.get(ROUTE, "other"), answered.status
            seen.failed = answered.status >= 500 and not not_yet
        if not answered.prepared:
            for name, value in {"X-Request-Id": request_id, **HEADERS}.items():
                answered.headers.setdefault(name, value)
        return answered

    return answer


async def _expect(request: web.Request) -> web.StreamResponse | None:
    if request.headers.get("Expect", "").lower() == "100-continue":
        return None  # `invite` says so, once its sender may do what it asks
    return library_error_answer(417, new_request_id())


_CAUSE = "its worker or its server has not finished"


async def run_in_time(call: Call) -> Json | web.StreamResponse:
    """The handler's answer, or at the deadline how far it is."""
    if not call.route.timely:
        return await call.route.run(call)
    if call.route.body is not None:
        await call.raw_body()  # its sender has a limit of its own
    wait = float(call.query.get("wait", ANSWER_WITHIN))
    deadline = time.monotonic() + wait
    answer = await in_time(_to_the_end(call, deadline + GRACE), deadline)
    return _going_on(call, wait) if answer is None else answer


async def _to_the_end(call: Call, answered_at: float) -> Json | web.StreamResponse:
    try:
        return await call.route.run(call)
    except WaError as error:
        if time.monotonic() > answered_at:  # the client has its 202 already
            id = call.request.match_info.get("id", "")
            bound(Category.API, InstanceId(id) if id else None).warning(
                "%s %s was answered before its end, and failed: %s",
                call.route.method,
                plain_path(call.route.path),
                error,
            )
        raise


def _going_on(call: Call, wait: float) -> web.StreamResponse:
    if 202 not in call.route.answers:
        raise TryLater(
            f"cannot answer within {wait:g} s: {_CAUSE}; to wait longer: ?wait=300", code="slow"
        )
    given = call.request.match_info
    id, name = given.get("id", ""), given.get("name", "")
    view = call.supervisor.views().get(InstanceId(id))
    look: Json = {"state": f"/api/backends/{name}" if name else "/api/health"}
    goes_on = {"ending": "goes_on", "sentence": f"it goes on: {_CAUSE}"}
    state = show_instance(view) if view else {}
    return json_answer({**state, **goes_on, "look": look_at(id) if id else look}, 202)
