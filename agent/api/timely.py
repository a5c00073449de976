"""The deadline of a request that waits for a session's worker or a server. An order goes on after
its answer; of a question the answer is lost."""

import time

from aiohttp import web

from agent.api.http.call import Call, Json, plain_path
from agent.api.http.envelope import json_answer
from agent.api.http.fields import INTEGER, Field
from agent.api.present import show_backend, show_instance
from agent.core.model import Category, InstanceId
from agent.core.session import BackendView
from agent.errors import TryLater, WaError
from agent.log import bound
from agent.supervise.repairs import GRACE, in_time

ANSWER_WITHIN = 10
WAIT = (
    Field(
        "wait",
        INTEGER,
        f"seconds after which it is answered, default {ANSWER_WITHIN}: 202 where the work goes on,"
        " 503 where the answer is what was asked for",
        most=300,
    ),
)
_QUICK = 1.0
"""Seconds: a server that answered within these is not why a request takes long."""


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
    given, every = call.request.match_info, call.supervisor.backends.views()
    id = given.get("id", "")
    view = call.supervisor.views().get(InstanceId(id))
    name = view.instance.backend if view else given.get("name", "")
    chosen = [one for one in every if one.name == name] if given else every
    slowest = max(chosen, key=lambda one: (not one.up, one.seconds), default=None)
    if 202 not in call.route.answers:
        raise TryLater(
            f"cannot answer within {wait:g} s: {_cause(slowest)}; to wait longer: ?wait=300",
            code="slow",
        )
    look: Json = {"state": f"/api/backends/{name}" if name else "/api/health"}
    state: Json = {}
    if view is not None:
        state = show_instance(view)
    elif given and slowest is not None:
        state = show_backend(slowest)
    goes_on = {"ending": "goes_on", "sentence": f"it goes on: {_cause(slowest)}"}
    return json_answer({**state, **goes_on, "look": look_at(id) if id else look}, 202)


def _cause(backend: BackendView | None) -> str:
    if backend is None:
        return "its worker has not finished"
    if not backend.up:
        return f"backend {backend.name}: {backend.sentence}"
    if backend.seconds < _QUICK:
        return f"the server of backend {backend.name} has not finished"
    return f"the server of backend {backend.name} answers in {backend.seconds:.1f} s"


def look_at(id: str) -> Json:
    return {
        "state": f"/api/instance/{id}",
        "qr": f"/api/instance/{id}/qr",
        "why": f"wa-agent why {id}",
    }
