"""Snapshots of a session: list, make, restore; a session out as an archive, or in from one."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from agent.api.http.body import TooSlow, UnsupportedType
from agent.api.http.call import Call, Json
from agent.api.http.envelope import HEADERS, created
from agent.api.http.fields import BOOLEAN, STRING, Field
from agent.api.present import show_instance
from agent.core.event_json import wall_text
from agent.core.model import ID_PATTERN, parse_instance_id
from agent.errors import InvalidRequest
from agent.vault.copies.snapshots import Snapshot

RESTORE = (
    Field(
        "force",
        BOOLEAN,
        "true = also replace a newer session or use a damaged snapshot; default false",
    ),
)
EXPORT = (Field("snapshot", STRING, "of this snapshot; default: one made now", most=24),)
IMPORT = (
    Field(
        "id",
        STRING,
        "id of the instance; default: its id in the archive",
        most=48,
        pattern=ID_PATTERN,
    ),
    Field("replace", BOOLEAN, "true = retire an instance of that id first; default false"),
    Field("enable", BOOLEAN, "true = run it at once; default false"),
)
ARCHIVES = ("application/gzip", "application/octet-stream")
SHA256 = "X-Archive-SHA256"
_PIECE = 1 << 18
_READER_SECONDS = 60.0
_SLOWEST = 16 * 1024
"""Bytes a second of a client that sends an archive, after the first `body_timeout`."""


async def list_snapshots(call: Call) -> Json:
    keeping = call.supervisor.keeping
    snapshots = await keeping.snapshots(call.id)
    progress = keeping.under_way.get(call.id)
    under_way = None
    if progress is not None:
        under_way = {"what": progress.what, "done": progress.done, "total": progress.total}
    return {
        "snapshots": [show_snapshot(snapshot) for snapshot in snapshots],
        "under_way": under_way,
    }


async def make(call: Call) -> Json:
    made = await call.supervisor.keeping.snapshot(call.id, "asked for")
    return show_snapshot(made)


async def restore(call: Call) -> Json:
    body = await call.body()
    name = call.request.match_info["snapshot"]
    force = body.get("force", False)
    restored = await call.supervisor.keeping.restore(call.id, name, force=force)
    return {
        "snapshot": show_snapshot(restored.snapshot),
        "trash": restored.retired.name if restored.retired else "",
        "instance": show_instance(call.supervisor.view(call.id)),
    }


async def export(call: Call) -> web.StreamResponse:
    body = await call.body()
    async with call.supervisor.moving.export(call.id, body.get("snapshot", "")) as exported:
        name = f"{call.id}.{exported.snapshot.name}.wa-session.tar.gz"
        headers = {
            **HEADERS,
            "Content-Type": "application/gzip",
            "Content-Disposition": f'attachment; filename="{name}"',
            SHA256: exported.packed.sha256,
        }
        answer = web.StreamResponse(headers=headers)
        answer.content_length = exported.packed.size
        await answer.prepare(call.request)
        while piece := await asyncio.to_thread(exported.file.read, _PIECE):
            async with asyncio.timeout(_READER_SECONDS):
                await answer.write(piece)
        await answer.write_eof()
        return answer


async def import_archive(call: Call) -> web.Response:
    query = call.query
    imported = await call.supervisor.moving.import_archive(
        archive_of(call),
        id=parse_instance_id(query["id"]) if "id" in query else None,
        replace=query.get("replace", False),
        enable=query.get("enable", False),
    )
    shown = {**show_instance(imported.view), "sha256": imported.sha256, "trash": imported.retired}
    return created(shown, f"/api/instance/{imported.view.instance.id}")


def archive_of(call: Call) -> AsyncIterator[bytes]:
    """The body, where it says that it is an archive."""
    if call.request.content_type not in ARCHIVES:
        raise UnsupportedType(
            f"cannot read the archive: its Content-Type must be {ARCHIVES[0]}", field="body"
        )
    if call.request.headers.get("Content-Encoding", "identity") != "identity":
        raise UnsupportedType("cannot read the archive: it has a Content-Encoding", field="body")
    return _pieces(call)


async def _pieces(call: Call) -> AsyncIterator[bytes]:
    """The body in pieces, each within `body_timeout`, and the whole at a rate of its own."""
    seconds = call.parts.section.body_timeout
    content = call.request.content
    last, received = asyncio.get_running_loop().time() + seconds, 0
    while True:
        left = last + received / _SLOWEST - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(min(seconds, left)):
                piece = await content.readany()
        except TimeoutError as error:
            cause = (
                f"the client sent nothing for {seconds:g} seconds"
                if left >= seconds
                else f"the client sends less than {_SLOWEST} bytes a second"
            )
            raise TooSlow(f"cannot read the archive: {cause}") from error
        except web.RequestPayloadError as error:
            raise InvalidRequest("cannot read the archive: it ended early", field="body") from error
        if not piece:
            return
        received += len(piece)
        yield piece


def show_snapshot(snapshot: Snapshot) -> dict[str, Any]:
    manifest = snapshot.manifest
    shown: dict[str, Any] = {
        "name": snapshot.name,
        "id": snapshot.id,
        "good": snapshot.good,
        "problem": snapshot.problem,
    }
    if manifest is not None:
        shown |= {
            "taken": wall_text(manifest.taken_wall),
            "why": manifest.why,
            "engine": manifest.engine,
            "account": manifest.account,
            "state": manifest.state.value,
            "backup": manifest.backup,
            "files": len(manifest.listing.files),
            "bytes": manifest.listing.size,
        }
    return shown
