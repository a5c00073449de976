"""The fleet as this machine knows it."""

from typing import Any

from agent.api.http.auth import Right
from agent.api.http.call import Call, Field, Json, route
from agent.clock import boot_now
from agent.core.words import ID_PATTERN
from agent.errors import NotFound, Refused


def _fleet(call: Call) -> Any:
    """Return the `Joined`, typed Any: an import of its module would load all of a fleet."""
    fleet = call.supervisor.gate.fleet
    if not fleet.leased:
        raise NotFound("cannot find a fleet: this machine is in none; [fleet] store names its etcd")
    return fleet


async def show(call: Call) -> Json:
    """Machines of the fleet, this machine's place in it, and what is not where it should be."""
    return dict(await _fleet(call).show())


async def why(call: Call) -> Json:
    """The machine that owns a session, its copies, and why it does not run."""
    from agent.fleet.shown import explain

    id, fleet = call.request.match_info["id"], _fleet(call)
    if id not in fleet.view.sessions:
        await fleet.find(id)
    if (seen := fleet.view.sessions.get(id)) is None:
        raise fleet.lacks(id, "find")
    row, known = seen.record, round(boot_now() - seen.since, 1)
    return {
        **{"id": id, "machine": row.machine, "epoch": row.epoch, "copies": list(row.copies)},
        **{"wanted": row.wanted, "failover": row.failover, "unchanged_seconds": known},
        "sentence": fleet.problem or fleet.unsettled.get(id) or explain(fleet.view, id),
    }


async def move(call: Call) -> Json:
    """Move a session to another machine, with its files as they are."""
    id, machine = call.request.match_info["id"], call.body["machine"]
    await _fleet(call).move(id, machine)
    return {"id": id, "machine": machine}


async def drain(call: Call) -> Json:
    """Move all sessions away from this machine, which takes none until `on` is false.

    The answer has the sessions that stay until another machine can take them, each with the cause;
    and the problem that must end before the others move, if there is one.
    """
    fleet, on = _fleet(call), call.body["on"]
    return {"on": on, "sessions": await fleet.drain(on), "problem": fleet.problem}


async def accept(call: Call) -> Json:
    """End a halt of the fleet: each session goes to the machine with its newest files.

    409 while a machine has not said which sessions it has, unless `without` names it."""
    from agent.fleet import operator

    fleet, without = _fleet(call), call.body.get("without", ())
    if fleet.name in without:
        raise Refused(f"cannot accept without {fleet.name}: it is up, as its agent answers")
    decided = await operator.accept(fleet.reached(), fleet.keys, without)
    return {"sessions": {id: it.machine for id, it in sorted(decided.items())}}


async def forget(call: Call) -> Json:
    """A machine was switched off for good.

    The answer has the sessions that no machine takes, as none has a copy."""
    from agent.fleet import operator

    fleet, name = _fleet(call), call.request.match_info["machine"]
    return {"sessions": dict.fromkeys(await operator.forget(fleet.reached(), fleet.keys, name), "")}


_NAME = f"(?:{ID_PATTERN})"
"""Pattern of a machine's name, which a refusal must not call a session's id."""
_MACHINE = Field("machine", str, "the machine that gets it", required=True, pattern=_NAME)
_ON = Field("on", bool, "false = it takes sessions again", required=True)
_WITHOUT = Field("without", list, "machines that are off for good", most=100, pattern=_NAME)
ROUTES = (
    route("GET /api/fleet", Right.READ, show),
    route("GET /api/fleet/sessions/{id}", Right.READ, why),
    route("POST /api/fleet/sessions/{id}/move", Right.ADMIN, move, (_MACHINE,)),
    route("POST /api/fleet/drain", Right.ADMIN, drain, (_ON,)),
    route("POST /api/fleet/accept", Right.ADMIN, accept, (_WITHOUT,)),
    route(f"POST /api/fleet/machines/{{machine:{ID_PATTERN}}}/forget", Right.ADMIN, forget, ()),
)
