"""The fleet as this machine knows it."""

from typing import TYPE_CHECKING

from agent.api.http.auth import Right
from agent.api.http.call import Call, Field, Json, route
from agent.core.words import ID_PATTERN
from agent.errors import NotFound

if TYPE_CHECKING:
    from agent.fleet.joined import Joined


def _fleet(call: Call) -> "Joined":
    fleet = call.supervisor.gate.fleet
    if not fleet.leased:
        raise NotFound("cannot find a fleet: this machine is in none; [fleet] store names its etcd")
    from agent.fleet.joined import Joined  # with all that a fleet needs

    assert isinstance(fleet, Joined)
    return fleet


async def show(call: Call) -> Json:
    """Machines of the fleet, this machine's place in it, and what is not where it should be."""
    return _fleet(call).show()


async def accept(call: Call) -> Json:
    """End a halt of the fleet: each session goes to the machine with its newest files.

    409 while a machine has not said which sessions it has, unless `without` names it."""
    decided = await _fleet(call).accept(call.body.get("without", ()))
    return {"sessions": {id: it.machine for id, it in sorted(decided.items())}}


async def forget(call: Call) -> Json:
    """A machine was switched off: others may run its sessions at once.

    The answer has the sessions that no machine takes by itself, each with the machine that has it
    now; "" = none has a copy."""
    return {"sessions": await _fleet(call).forget(call.request.match_info["machine"])}


async def move(call: Call) -> Json:
    """End a session here and let another machine go on with it, with all that it has."""
    machine = call.body["machine"]
    await _fleet(call).move(call.id, machine)
    return {"id": call.id, "machine": machine}


async def drain(call: Call) -> Json:
    """Give all sessions of this machine away, one after the other, and take none; or no more."""
    await _fleet(call).drain(call.body["on"])
    return {"drained": call.body["on"]}


_MACHINE = Field(
    "machine", str, "the machine that goes on with it", required=True, pattern=ID_PATTERN
)
_ON = Field("on", bool, "false: this machine takes sessions again", required=True)
_WITHOUT = Field("without", list, "machines that are off for good", most=100, pattern=ID_PATTERN)
ROUTES = (
    route("GET /api/fleet", Right.READ, show),
    route("POST /api/fleet/sessions/{id}/move", Right.ADMIN, move, (_MACHINE,)),
    route("POST /api/fleet/drain", Right.ADMIN, drain, (_ON,)),
    route("POST /api/fleet/accept", Right.ADMIN, accept, (_WITHOUT,)),
    route(f"POST /api/fleet/machines/{{machine:{ID_PATTERN}}}/forget", Right.ADMIN, forget, ()),
)
