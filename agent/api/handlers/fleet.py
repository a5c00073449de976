"""The fleet: its machines, moves, and commands that wait for the owner of a session."""

import time
from typing import TYPE_CHECKING, Any

from agent.api.http.call import Call, Json
from agent.api.http.fields import BOOLEAN, INTEGER, STRING, Field
from agent.api.present import show_instance
from agent.core.event_json import wall_text
from agent.core.fleet.headers import ACCEPTED_LOSS
from agent.core.model import InstanceId
from agent.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from agent.api.fleet.door import FleetDoor
    from agent.fleet.coordinator import MachineRow

FORGET = (Field("confirm", STRING, "the machine's name", required=True, most=64),)
ACCEPT = (Field("confirm", BOOLEAN, "true = owners may change again", required=True),)
RELEASE = (Field("confirm", STRING, "the instance's id", required=True, most=48),)
MOVE = (Field("to", STRING, "name of the machine; default: the one with most room", most=64),)
PROMISE = (
    Field(
        "machine", INTEGER, "number of the machine that asks", required=True, least=0, most=2**31
    ),
    Field("epoch", INTEGER, "its epoch", required=True, least=0, most=2**53),
    Field("to", STRING, "name of the machine that is asked: its address may be another's by now"),
    Field("rehearsal", BOOLEAN, "true = say whether it would promise, and promise nothing"),
)


def fleet_of(call: Call) -> "FleetDoor":
    if call.parts.fleet is None:
        raise NotFound(
            "cannot find a fleet: this machine is alone; set database in [fleet] to join one",
            code="no_fleet",
        )
    return call.parts.fleet


async def show(call: Call) -> Json:
    face = fleet_of(call).face
    status = await face.status()
    others = [row for row in status.machines if row.name != face.machine]
    reached = await face.peers.reachable(others)
    return {
        "machine": face.machine,
        "address": face.address,
        "database": {
            "reachable": status.database_reachable,
            "error": status.database_error,
            "since_seconds": round(max(time.time() - status.database_since_wall, 0.0), 3),
        },
        "lease": {
            "holds": status.lease_holds,
            "seconds_left": round(status.lease_seconds, 3),
            "by": status.lease_by,
        },
        "halted": status.halted,
        "settled": status.settled,
        "machines": [_show_machine(row, reached.get(row.name)) for row in status.machines],
        "machines_as_of_seconds": round(status.machines_age, 3),
        "waiting": [
            {"id": id, "why": why, "machine": machine} for id, why, machine in status.waiting
        ],
        "moving": [{"id": id, "to": to} for id, to in status.moving],
        "apart": [{"machine": name, "why": why} for name, why in status.apart.items()],
        "elsewhere": list(status.elsewhere),
        "memory_error": status.memory_error,
    }


def _show_machine(row: "MachineRow", reachable: bool | None) -> dict[str, Any]:
    return {
        "name": row.name,
        "address": row.address,
        "alive": row.alive,
        "reachable": reachable,
        "drained": row.drained,
        "version": row.version,
        "labels": dict(row.labels),
        "capacity": row.capacity,
        "sessions": row.sessions,
        "engines": sorted(row.engines),
        "seconds_since_renewal": row.seconds_since_renewal,
    }


async def drain(call: Call) -> Json:
    name = call.request.match_info["name"]
    await fleet_of(call).face.drain(name)
    return {"machine": name, "drained": True}


async def undrain(call: Call) -> Json:
    name = call.request.match_info["name"]
    await fleet_of(call).face.undrain(name)
    return {"machine": name, "drained": False}


async def forget(call: Call) -> Json:
    """Its sessions may then run elsewhere: a machine that lives after all would run them too."""
    face, name = fleet_of(call).face, call.request.match_info["name"]
    if (await call.body())["confirm"] != name:
        raise InvalidRequest(
            f'cannot forget {name} without its name: send {{"confirm": "{name}"}}', field="confirm"
        )
    await face.forget(name)
    return {"machine": name, "forgotten": True}


async def accept(call: Call) -> Json:
    face = fleet_of(call).face
    if not (await call.body())["confirm"]:
        raise InvalidRequest('cannot accept the loss: send {"confirm": true}', field="confirm")
    await face.accept()
    return {"accepted": True}


async def leave(call: Call) -> Json:
    face = fleet_of(call).face
    await face.leave()
    return {"machine": face.machine, "leaving": True}


async def release(call: Call) -> Json:
    """For a machine whose fleet is gone: another machine that lives would run it too."""
    if (await call.body())["confirm"] != call.id:
        raise InvalidRequest(
            f'cannot release {call.id} without its id: send {{"confirm": "{call.id}"}}',
            field="confirm",
        )
    return show_instance(await call.supervisor.orders.release(call.id))


async def accept_copy(call: Call) -> Json:
    """Of a session whose machine is lost: it starts elsewhere with older files than there."""
    if (await call.body())["confirm"] != call.id:
        raise InvalidRequest(
            f'cannot accept the copy of {call.id} without its id: send {{"confirm": "{call.id}"}}',
            field="confirm",
        )
    await fleet_of(call).face.accept_copy(call.id)
    return {"id": call.id, "accepted": True}


async def promise(call: Call) -> Json:
    face, body = fleet_of(call).face, await call.body()
    if body.get("to") not in (None, face.machine):
        return {"promised": False}
    accepted = call.request.headers.get(ACCEPTED_LOSS, "")
    machine, epoch = body["machine"], body["epoch"]
    if body.get("rehearsal"):
        word = face.word
        told = {"holds": word.holds, "renewed_in": word.renewed_in}
        return {"promised": face.would_promise(machine, epoch, accepted), **told}
    return {"promised": await face.promise(machine, epoch, accepted)}


async def move(call: Call) -> Json:
    face, body = fleet_of(call).face, await call.body()
    call.supervisor.view(call.id)
    to = await face.move(call.id, body.get("to"), f"{call.caller.name} moved it")
    return {"id": call.id, "from": face.machine, "to": to}


async def show_session(call: Call) -> Json:
    face = fleet_of(call).face
    row = await face.coordinator.session(call.id)
    if row is None:
        raise NotFound(f"cannot find the instance {call.id}: no machine of the fleet has it")
    machine = face.directory.name_of(row.machine)
    view = next((it for it in await face.coordinator.views([row.id])), None)
    waits = view.view.get("hold_sentence", "") if view and view.machine == row.machine else ""
    waits = next((it[1] for it in (await face.status()).waiting if it[0] == row.id), waits)
    # Only its own machine knows what stands in the way of a newer copy.
    behind, problem = face.copy_behind(call.id) if machine == face.machine else (None, "")
    copied = None if row.copy_at is None else max(time.time() - row.copy_at, 0.0)
    return {
        "id": row.id,
        "machine": machine,
        "epoch": row.epoch,
        "engine": row.engine,
        "wanted": row.wanted,
        "why": row.why,
        "moved_at": wall_text(row.moved_at),
        "copy_age_seconds": None if copied is None else round(copied, 3),
        "copy_bytes": row.copy_bytes,
        "copy_behind_seconds": None if behind is None else round(behind, 3),
        "copy_problem": problem,
        "failover": row.failover,
        "labels": dict(row.labels),
        "only_on": row.only_on,
        "waits": waits,
    }


async def show_command(call: Call) -> Json:
    face, id = fleet_of(call).face, call.request.match_info["command"]
    row = await face.coordinator.command(id)
    # A foreign command is as unknown as one that never was.
    if row is None or not call.caller.sees(InstanceId(row.session)):
        raise NotFound(f"cannot find the command {id}: it was never stored, or is two days old")
    answer = row.answer or {}
    return {
        "id": row.id,
        "instance": row.session,
        "verb": row.verb,
        "state": row.state,
        "outcome": row.outcome,
        "sentence": str(answer.get("sentence", "")),
        "asked_by": row.asked_by,
        "age_seconds": round(row.age_seconds, 3),
        "machine": "" if row.machine is None else face.directory.name_of(row.machine),
    }
