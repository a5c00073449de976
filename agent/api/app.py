"""The application: each route of the table, behind the checks that every request passes, and within
a time. An order goes on after its answer; of a question the answer is lost."""

import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from agent.api.http.audit import REQUEST_ID, ROUTE, path_of
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

NOT_YET = web.RequestKey("not_yet", bool)


def build_app(parts: Parts, allowed_hosts: frozenset[str]) -> web.Application:
    app = web.Application(
        client_max_size=parts.section.body_limit, middlewares=[_front_door(parts, allowed_hosts)]
    )
    parts.metrics.http.expect((route.method, plain_path(route.path)) for route in ROUTES)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _bound(route, parts), expect_handler=_expect)
        if route.method == "GET":
            app.router.add_route("HEAD", route.path, _bound(route, parts))
    return app


def _bound(route: Route, parts: Parts) -> Answering:
    async def answer(request: web.Request) -> web.StreamResponse:
        request[ROUTE] = plain_path(route.path)
        id = parse_instance_id(request.match_info["id"]) if "id" in request.match_info else None
        caller = identify(request, parts.section, parts.ring)
        try:
            require(caller, route.right, id)
            query = read_query(request, route.query)
            call = Call(request, route, parts, caller, query)
            if route.body == ():
                await call.body()
            answered = await run_in_time(call)
        except WaError as error:
            parts.audit.answered(request, caller, id, error.http, error.code)
            raise
        if not isinstance(answered, web.StreamResponse):
            answered = json_answer(answered, route.answers[0])
        location = answered.headers.get("Location", "")
        parts.audit.answered(request, caller, id, answered.status, location)
        return answered

    return answer


def _front_door(parts: Parts, allowed_hosts: frozenset[str]) -> Middleware:
    http = parts.metrics.http

    @web.middleware
    async def answer(request: web.Request, handler: Answering) -> web.StreamResponse:
        request_id = request[REQUEST_ID] = new_request_id()
        with http.observe(request.method) as seen:
            answered = await _safely(request, handler, parts, allowed_hosts)
            seen.route = request.get(ROUTE, "other")
            seen.code = answered.status
            seen.failed = answered.status >= 500 and not request.get(NOT_YET)
        if not answered.prepared:
            answered.headers.setdefault("X-Request-Id", request_id)
            for name, value in HEADERS.items():
                answered.headers.setdefault(name, value)
        return answered

    return answer


async def _safely(
    request: web.Request, run: Answering, parts: Parts, allowed_hosts: frozenset[str]
) -> web.StreamResponse:
    request_id, audit = request[REQUEST_ID], parts.audit
    try:
        if isinstance(request.protocol, Connection):
            await request.protocol.admit(righted=has_rights(request, parts.section, parts.ring))
        check_entrance(request, allowed_hosts)
        return await run(request)
    except WaError as error:
        request[NOT_YET] = isinstance(error, NotYet)
        if error.http >= 500 and not request[NOT_YET]:
            audit.failed(request, error)
        elif error.http in (401, 403):
            audit.refused(request, error.http, error.code)
        return error_answer(error, request_id)
    except web.HTTPException as error:
        return library_error_answer(error.status, request_id, error.headers)
    except ConnectionError:
        raise  # the client is gone
    except Exception:
        log.exception("request %s failed: %s %s", request_id, request.method, path_of(request))
        return library_error_answer(500, request_id)


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
