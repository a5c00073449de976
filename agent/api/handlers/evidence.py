"""Evidence of a failing session: its worker's last lines, diagnostics and pictures of starts."""

from aiohttp import web

from agent.api.http.call import Call, Json
from agent.api.http.fields import INTEGER, Field

LINES = (Field("after", INTEGER, "the `next` of the answer before: what came since", least=0),)


async def worker_lines(call: Call) -> Json:
    call.supervisor.view(call.id)
    tail = await call.parts.evidence.worker_lines(call.id, call.query.get("after"))
    return {"lines": tail.lines, "command": tail.command, "next": tail.next, "cut": tail.cut}


async def failed_starts(call: Call) -> Json:
    call.supervisor.view(call.id)
    starts = await call.parts.evidence.failed_starts(call.id)
    return {
        "failed_starts": [
            {"name": start.name, "seen": start.seen, "picture": start.picture} for start in starts
        ]
    }


async def failed_start_picture(call: Call) -> web.Response:
    call.supervisor.view(call.id)
    name = call.request.match_info["failed"]
    content = await call.parts.evidence.picture(call.id, name)
    return web.Response(body=content, content_type="image/jpeg")
