"""/api/health says `ok` of the fleet only while no session needs a person."""

from agent.core.model import ConnectionStatus, Health, HealthVerdict, InstanceId
from tests.api.conftest import House
from tests.fakes.supervisor import make_view
from tests.sessions import Desired, changed


async def test_health_is_not_ok_while_a_session_needs_a_person(local, house: House) -> None:
    well, stuck, off = (InstanceId(one) for one in ("well", "stuck", "off"))
    known = house.supervisor.known
    known[well] = make_view("well")
    found = await (await local.get("/api/health")).json()
    assert (found["status"], found["in_trouble"]) == ("ok", [])
    verdict = HealthVerdict(Health.STUCK, ConnectionStatus.LOADING, "start_stuck", "it hangs")
    for id in (stuck, off):
        known[id] = make_view(str(id), status=ConnectionStatus.LOADING, verdict=verdict)
    known[off] = changed(known[off], desired=Desired(enabled=False))
    found = await (await local.get("/api/health")).json()
    assert (found["status"], found["in_trouble"]) == ("sessions_in_trouble", ["stuck"])
    assert (await local.get("/healthz")).status == 200, "the agent itself is well"
