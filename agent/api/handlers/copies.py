"""Copies of sessions: snapshots, the trash, and what repairs removed from a session on a backend;
each is listed and put back."""

from typing import Any

from agent.api.handlers.link import ask_engine
from agent.api.http.call import Call, Json
from agent.api.http.fields import BOOLEAN, Field
from agent.api.present import part, show_instance
from agent.core.session import wall_text
from agent.errors import NotFound
from agent.vault.snapshots import Snapshot

RESTORE = (
    Field(
        "force",
        BOOLEAN,
        "true = also replace a newer session or use a damaged snapshot; default false",
    ),
)


async def list_snapshots(call: Call) -> Json:
    """An instance's snapshots, newest first."""
    snapshots = await call.supervisor.keeping.snapshots(call.id)
    return {"snapshots": [show_snapshot(snapshot) for snapshot in snapshots]}


async def make(call: Call) -> Json:
    """Make a snapshot now."""
    made = await call.supervisor.keeping.snapshot(call.id, "asked for")
    return show_snapshot(made)


async def restore(call: Call) -> Json:
    """Replace an instance's session by a snapshot."""
    body = await call.body()
    name = call.request.match_info["snapshot"]
    force = body.get("force", False)
    restored = await call.supervisor.keeping.restore(call.id, name, force=force)
    return {
        "snapshot": show_snapshot(restored.snapshot),
        "trash": restored.retired.name if restored.retired else "",
        "instance": show_instance(call.supervisor.view(call.id)),
    }


def show_snapshot(snapshot: Snapshot) -> dict[str, Any]:
    manifest = snapshot.manifest
    shown = part(snapshot, "name", "id", "good", "problem")
    if manifest is not None:
        shown |= part(manifest, "taken_wall", "why", "engine", "account", "state", "backup")
        shown |= {"files": len(manifest.listing.files), "bytes": manifest.listing.size}
    return shown


async def trash(call: Call) -> Json:
    """Retired sessions."""
    return {
        "trash": [
            {**part(row, "name", "retired_wall=at_wall"), "id": row.name.partition(".")[0]}
            for row in await call.supervisor.orders.trash()
        ]
    }


async def restore_trash(call: Call) -> Json:
    """Bring a retired session back."""
    view = await call.supervisor.orders.restore_trash(call.request.match_info["name"])
    return show_instance(view)


_REMOVED = ("name", "why", "state", "files", "keys", "whole")
LONG_TIMEOUT = 150.0
"""Such an answer comes after the session is down, or after a restore up again."""


async def list_removed(call: Call) -> Json:
    """Files and keys that repairs removed on the backend, newest first."""
    return {"removed": (await _removed(call))[::-1]}


async def restore_removed(call: Call) -> Json:
    """Put removed files and keys back; the session is down meanwhile.

    Files in their places are removed first, as by a repair.
    """
    name = call.request.match_info["removed"]
    removed = next((row for row in await _removed(call) if row["name"] == name), None)
    if removed is None:
        raise NotFound(
            f"cannot put back {name}: no repair of {call.id} has that name", field="name"
        )
    await ask_engine(call, "restore_removed", {"name": name}, timeout=LONG_TIMEOUT, alone=True)
    view = call.supervisor.view(call.id)
    return {"removed": removed, "instance": show_instance(view)}


async def _removed(call: Call) -> list[dict[str, Any]]:
    lacking = f"cannot do this with {call.id}: its engine {call.engine} removes no files"
    answer = await ask_engine(call, "removed", {}, lacking=lacking, timeout=30.0)
    return [
        {**{name: row.get(name) for name in _REMOVED}, "removed": wall_text(row.get("at"))}
        for row in answer["removed"]
    ]
