"""A session out as an archive, and in from one."""

import asyncio

from aiohttp import web

from agent.api.http.auth import Right
from agent.api.http.call import Call, Field, Json, archive_of, route
from agent.api.present import HEADERS, show_instance
from agent.core.words import ID_PATTERN

EXPORT = (Field("snapshot", str, "of this snapshot; default: one made now", most=24),)
IMPORT = (
    Field("id", str, "id of the instance; default: the archive's", most=48, pattern=ID_PATTERN),
    Field("replace", bool, "true = retire an instance of that id first; default false"),
    Field("enable", bool, "true = run it at once; default false"),
)
SHA256 = "X-Archive-SHA256"
_PIECE = 1 << 18
_READER_SECONDS = 60.0


async def export(call: Call) -> web.StreamResponse:
    """An instance's session as an archive."""
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


async def import_archive(call: Call) -> Json:
    """An instance from an archive, which is the body."""
    how = {name: call.query.get(name, False) for name in ("replace", "enable")}
    archive, id = archive_of(call), call.query.get("id")
    view, sha256, retired = await call.parts.archives.import_archive(archive, id=id, **how)
    return {**show_instance(view), "sha256": sha256, "trash": retired}


ONE = "/api/instance/{id}"
ROUTES = (
    route(f"POST {ONE}/export", Right.ADMIN, export, EXPORT),
    route("POST /api/import", Right.ADMIN, import_archive, query=IMPORT, answers=(201,), made=ONE),
)
