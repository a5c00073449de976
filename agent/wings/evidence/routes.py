"""Evidence of a failing session: its worker's last lines, diagnostics and pictures of starts."""

from aiohttp import web

from agent.api.http.auth import Right
from agent.api.http.call import Call, Json, Route
from agent.api.http.fields import INTEGER, Field
from agent.core.model import ID_PATTERN
from agent.wings.evidence.part import Evidence

ONE = f"/api/instance/{{id:{ID_PATTERN}}}"
FAILED = r"{failed:[0-9]{8}T[0-9]{6}Z}"
AREA = "Instances"
LINES = (Field("after", INTEGER, "the `next` of the answer before: what came since", least=0),)


async def worker_lines(call: Call) -> Json:
    call.supervisor.view(call.id)
    tail = await call.parts.wing(Evidence).worker_lines(call.id, call.query.get("after"))
    return {"lines": tail.lines, "command": tail.command, "next": tail.next, "cut": tail.cut}


async def failed_starts(call: Call) -> Json:
    call.supervisor.view(call.id)
    starts = await call.parts.wing(Evidence).failed_starts(call.id)
    return {
        "failed_starts": [
            {"name": start.name, "seen": start.seen, "picture": start.picture} for start in starts
        ]
    }


async def failed_start_picture(call: Call) -> web.Response:
    call.supervisor.view(call.id)
    name = call.request.match_info["failed"]
    content = await call.parts.wing(Evidence).picture(call.id, name)
    return web.Response(body=content, content_type="image/jpeg")


ROUTES = (
    Route(
        "GET",
        f"{ONE}/worker-lines",
        Right.OPERATE,
        worker_lines,
        "The last lines of an instance's worker",
        query=LINES,
        area=AREA,
    ),
    Route(
        "GET",
        f"{ONE}/failed-starts",
        Right.OPERATE,
        failed_starts,
        "The diagnostics that an engine kept of failed starts, newest first",
        area=AREA,
    ),
    Route(
        "GET",
        f"{ONE}/failed-starts/{FAILED}/picture",
        Right.ADMIN,
        failed_start_picture,
        "The picture of a failed start",
        area=AREA,
    ),
)
