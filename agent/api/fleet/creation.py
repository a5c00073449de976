"""Creates an instance on the machine that the fleet chooses."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from agent.api.fleet.face import FleetFace
from agent.api.fleet.forward import send_json
from agent.api.http.call import Call
from agent.api.http.envelope import created
from agent.api.placement import labels_of
from agent.api.present import show_instance
from agent.core.model import Instance


async def create(
    face: FleetFace, call: Call, instance: Instance, body: Mapping[str, Any]
) -> web.StreamResponse:
    on, labels, failover = body.get("on", ""), labels_of(body), body.get("failover", "")
    if not call.caller.through:
        row = await face.place(instance, on, labels)
        if row.name != face.machine:
            return await send_json(face.peers, row, call, body)
    view = await face.create(instance, on, labels, failover)
    shown = {**show_instance(view), "machine": face.machine, "as_of_seconds": 0.0}
    return created(shown, f"/api/instance/{instance.id}")
