"""A session out as an archive, and in from one."""

import asyncio

from aiohttp import web

from agent.api.http.auth import Right
from agent.api.http.call import Call, Route, archive_of
from agent.api.http.envelope import HEADERS, created
from agent.api.http.fields import BOOLEAN, STRING, Field
from agent.api.present import show_instance
from agent.core.model import ID_PATTERN

EXPORT = (Field("snapshot", STRING, "of this snapshot; default: one made now", most=24),)
IMPORT = (
    Field("id", STRING, "id of the instance; default: the archive's", most=48, pattern=ID_PATTERN),
    Field("replace", BOOLEAN, "true = retire an instance of that id first; default false"),
    Field("enable", BOOLEAN, "true = run it at once; default false"),
)
SHA256 = "X-Archive-SHA256"
_PIECE = 1 << 18
_READER_SECONDS = 60.0


async def export(call: Call) -> web.StreamResponse:
    async with call.parts.archives.export(call.id, call.body.get("snapshot", "")) as found:
        file, snapshot, packed = found
        name = f"{call.id}.{snapshot.name}.wa-session.tar.gz"
        headers = {
            **HEADERS,
            "Content-Type": "application/gzip",
            "Content-Disposition": f'attachment; filename="{name}"',
            SHA256: packed.sha256,
        }
        answer = web.StreamResponse(headers=headers)
        answer.content_length = packed.size
        await answer.prepare(call.request)
        while piece := await asyncio.to_thread(file.read, _PIECE):
            async with asyncio.timeout(_READER_SECONDS):
                await answer.write(piece)
        await answer.write_eof()
        return answer


async def import_archive(call: Call) -> web.Response:
    query = call.query
    view, sha256, retired = await call.parts.archives.import_archive(
        archive_of(call),
        id=query.get("id"),
        replace=query.get("replace", False),
        enable=query.get("enable", False),
    )
    shown = {**show_instance(view), "sha256": sha256, "trash": retired}
    return created(shown, f"/api/instance/{view.instance.id}")


OUT, IN = "An instance's session as an archive", "An instance from an archive, which is the body"
ROUTES = (
    Route("POST", "/api/instance/{id}/export", Right.ADMIN, export, OUT, EXPORT),
    Route(
        *("POST", "/api/import", Right.ADMIN, import_archive, IN),
        query=IMPORT,
        answers=(201,),
    ),
)
