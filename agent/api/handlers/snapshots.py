"""Snapshots of a session: list, make, restore."""

from typing import Any

from agent.api.http.call import Call, Json
from agent.api.http.fields import BOOLEAN, Field
from agent.api.present import part, show_instance
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
    keeping = call.supervisor.keeping
    snapshots = await keeping.snapshots(call.id)
    progress = keeping.work.under_way.get(call.id)
    return {
        "snapshots": [show_snapshot(snapshot) for snapshot in snapshots],
        "under_way": progress and part(progress, "what", "done", "total"),
    }


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
