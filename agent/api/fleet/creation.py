"""Creates an instance on the machine that the fleet chooses."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from agent.api.fleet.forward import answer_of
from agent.api.http.call import Call
from agent.api.http.envelope import created
from agent.api.http.fleet_gate import show_caller
from agent.api.placement import labels_of
from agent.api.present import show_instance
from agent.core.model import Instance
from agent.fleet.coordinator import MachineRow
from agent.fleet.peers import Sent

if TYPE_CHECKING:
    from agent.api.fleet.door import FleetDoor


async def create(
    door: "FleetDoor", call: Call, instance: Instance, body: Mapping[str, Any]
) -> web.StreamResponse:
    on, labels, failover = body.get("on", ""), labels_of(body), body.get("failover", "")
    if not call.caller.through:
        row = await door.face.place(instance, on, labels)
        if row.name != door.face.machine:
            return await _create_there(door, call, row, body)
    view = await door.face.create(instance, on, labels, failover)
    shown = {**show_instance(view), "machine": door.face.machine, "as_of_seconds": 0.0}
    return created(shown, f"/api/instance/{instance.id}")


async def _create_there(
    door: "FleetDoor", call: Call, row: MachineRow, body: Mapping[str, Any]
) -> web.StreamResponse:
    sent = Sent(
        "POST",
        "/api/instance",
        {"Content-Type": "application/json"},
        json.dumps(body).encode(),
        show_caller(call.caller),
    )
    async with door.face.peers.forward(row, sent) as reply:
        return await answer_of(call.request, row, reply)
