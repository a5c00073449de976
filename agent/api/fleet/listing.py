"""The instances of all machines on one list: those of this one fresh, the others as published."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agent.api.http.call import Call
from agent.api.present import show_instance
from agent.core.model import InstanceId
from agent.core.view import InstanceView
from agent.fleet.coordinator import ViewRow

if TYPE_CHECKING:
    from agent.api.fleet.door import FleetDoor

Wanted = Callable[[Call, InstanceView], bool]


async def list_all(door: "FleetDoor", call: Call, wanted: Wanted) -> dict[str, Any]:
    query, directory = call.query, door.face.directory
    limit, mine = query.get("limit", 100), door.face.machine
    chosen: dict[str, InstanceView | ViewRow] = {}
    if query.get("machine", mine) == mine:
        chosen |= {id: view for id, view in _own(door, call).items() if wanted(call, view)}
    if query.get("machine") != mine:
        chosen |= await _published(door, call)
    sees = call.caller.sees
    ids = sorted(id for id in chosen if sees(InstanceId(id)))
    rest = [id for id in ids if id > query.get("after", "")]
    page = rest[:limit]
    return {
        "instances": [_show(door, chosen[id], mine) for id in page],
        "total": len(ids),
        "next": page[-1] if len(rest) > limit else None,
        "machines_away": sorted(row.name for row in directory.others if not row.alive),
    }


def _own(door: "FleetDoor", call: Call) -> Mapping[InstanceId, InstanceView]:
    """Without those that another machine owns by now; their folders are about to be retired."""
    directory, mine = door.face.directory, ("", door.face.machine)
    views = call.supervisor.views().items()
    return {id: view for id, view in views if directory.owner_name(id) in mine}


async def _published(door: "FleetDoor", call: Call) -> dict[str, ViewRow]:
    directory, local = door.face.directory, _own(door, call)
    only, rows = call.query.get("machine"), await door.views.all()
    return {
        id: row
        for id, row in rows.items()
        if id not in local
        and only in (None, directory.owner_name(id))
        and _matches(call.query, row.view)
    }


def _matches(query: Mapping[str, Any], view: Mapping[str, Any]) -> bool:
    return (
        ("status" not in query or view["connection_status"] in query["status"])
        and ("verdict" not in query or view["health"]["verdict"] in query["verdict"])
        and ("engine" not in query or view["engine"] == query["engine"])
        and ("backend" not in query or view["backend"] == query["backend"])
        and ("enabled" not in query or view["enabled"] == query["enabled"])
    )


def _show(door: "FleetDoor", entry: InstanceView | ViewRow, mine: str) -> dict[str, Any]:
    if isinstance(entry, InstanceView):
        return {**show_instance(entry), "machine": mine, "as_of_seconds": 0.0}
    return door.views.listed(entry, door.face.directory.owner(entry.id))
