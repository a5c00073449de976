"""The instances of all machines on one list: those of this one fresh, the others as published."""

from collections.abc import Callable, Container, Mapping
from typing import Any

from agent.api.fleet.published import PublishedViews
from agent.api.http.call import Call
from agent.api.present import show_instance
from agent.core.model import InstanceId
from agent.core.view import InstanceView
from agent.fleet.directory import Directory
from agent.fleet.waiting import ViewRow

Wanted = Callable[[Call, InstanceView], bool]


async def list_all(
    call: Call, wanted: Wanted, mine: str, directory: Directory, published: PublishedViews
) -> dict[str, Any]:
    """`mine`: this machine's name."""
    query, limit = call.query, call.query.get("limit", 100)
    local = _own(call, mine, directory)
    chosen: dict[str, InstanceView | ViewRow] = {}
    if query.get("machine", mine) == mine:
        chosen |= {id: view for id, view in local.items() if wanted(call, view)}
    if query.get("machine") != mine:
        chosen |= _elsewhere(query, await published.all(), local, directory)
    sees = call.caller.sees
    ids = sorted(id for id in chosen if sees(InstanceId(id)))
    rest = [id for id in ids if id > query.get("after", "")]
    page = rest[:limit]
    return {
        "instances": [
            {**show_instance(it), "machine": mine, "as_of_seconds": 0.0}
            if isinstance(it, InstanceView)
            else published.listed(it, directory.owner(it.id))
            for it in (chosen[id] for id in page)
        ],
        "total": len(ids),
        "next": page[-1] if len(rest) > limit else None,
        "machines_away": sorted(row.name for row in directory.others if not row.alive),
    }


def _own(call: Call, mine: str, directory: Directory) -> Mapping[InstanceId, InstanceView]:
    """Without those that another machine owns by now; their folders are about to be retired."""
    views = call.supervisor.views().items()
    return {id: view for id, view in views if directory.owner_name(id) in ("", mine)}


def _elsewhere(
    query: Mapping[str, Any],
    rows: Mapping[str, ViewRow],
    local: Container[str],
    directory: Directory,
) -> dict[str, ViewRow]:
    only = query.get("machine")
    return {
        id: row
        for id, row in rows.items()
        if id not in local
        and only in (None, directory.owner_name(id))
        and _matches(query, row.view)
    }


def _matches(query: Mapping[str, Any], view: Mapping[str, Any]) -> bool:
    return (
        ("status" not in query or view["connection_status"] in query["status"])
        and ("verdict" not in query or view["health"]["verdict"] in query["verdict"])
        and ("engine" not in query or view["engine"] == query["engine"])
        and ("backend" not in query or view["backend"] == query["backend"])
        and ("enabled" not in query or view["enabled"] == query["enabled"])
    )
