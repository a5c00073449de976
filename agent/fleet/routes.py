"""The fleet as this machine knows it."""

from agent.api.http.auth import Right
from agent.api.http.call import Call, Json, route
from agent.errors import NotFound


async def show(call: Call) -> Json:
    """Machines of the fleet, this machine's place in it, and what is not where it should be."""
    fleet = call.supervisor.gate.fleet
    if not fleet.leased:
        raise NotFound("cannot show a fleet: this machine is in none; [fleet] store names its etcd")
    from agent.fleet.joined import Joined  # with all that a fleet needs

    assert isinstance(fleet, Joined)
    return fleet.show()


ROUTES = (route("GET /api/fleet", Right.READ, show),)
