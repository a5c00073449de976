"""Why a session fails, for people: its worker's last lines, and what failed starts looked like."""

from aiohttp import web

from agent.api.http.call import Call
from agent.api.http.envelope import json_answer


async def worker_lines(call: Call) -> web.Response:
    call.supervisor.view(call.id)
    found = await call.parts.evidence.worker_lines(call.id)
    return json_answer({"lines": found.lines, "command": found.command})


async def failed_starts(call: Call) -> web.Response:
    call.supervisor.view(call.id)
    found = await call.parts.evidence.failed_starts(call.id)
    return json_answer(
        {
            "failed_starts": [
                {"name": one.name, "seen": one.seen, "picture": one.picture} for one in found
            ]
        }
    )


async def failed_start_picture(call: Call) -> web.Response:
    call.supervisor.view(call.id)
    name = call.request.match_info["failed"]
    content = await call.parts.evidence.picture(call.id, name)
    return web.Response(body=content, content_type="image/jpeg")
