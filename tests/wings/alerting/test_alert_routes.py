"""GET /api/alerts shows the board as it is, to every key with the right to read."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from agent.config.sections import ApiSection
from agent.metrics.exporter import Exporter
from tests.api.conftest import House, serve_fakes
from tests.fakes.supervisor import FakeKeys, FakeSupervisor
from tests.wings.alerting.a_board import a_board


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    supervisor = FakeSupervisor()
    exporter = Exporter(supervisor.views, supervisor.status, tmp_path)
    server = await serve_fakes(
        ApiSection(listen=""),
        supervisor,
        FakeKeys(),
        exporter,
        tmp_path / "api.sock",
        board=a_board,
    )
    connector = aiohttp.UnixConnector(str(tmp_path / "api.sock"))
    async with aiohttp.ClientSession(connector=connector, base_url="http://localhost") as session:
        yield session
    await server.close()


async def test_active_alerts_are_listed_the_worst_first(client: aiohttp.ClientSession) -> None:
    found = await (await client.get("/api/alerts")).json()
    names = [(one["name"], one["state"], one["silenced_by"]) for one in found["alerts"]]
    assert names == [
        ("WaBackendDown", "firing", None),
        ("WaSessionDown", "firing", "WaBackendDown"),
        ("WaDeadMansSwitch", "firing", None),
        ("WaSessionNeedsScan", "pending", None),
        ("WaHostCpuHigh", "resolved", None),
    ]
    down = found["alerts"][1]
    assert "`wa-agent why sales`" in down.pop("what_to_do")
    assert down == {
        "name": "WaSessionDown",
        "state": "firing",
        "severity": "warning",
        "group": "connectivity",
        "instance": "sales",
        "labels": {"backend": "evo", "session": "sales"},
        "sentence": "sales should be connected and is not",
        "since": "2027-01-15T07:50:00.000Z",
        "fired": "2027-01-15T07:55:00.000Z",
        "over": None,
        "silenced_by": "WaBackendDown",
        "runbook": "https://wiki.example/alerts#wasessiondown",
    }
    assert found["looked"] == "2027-01-15T08:00:00.000Z"
    assert found["alertmanager_problem"] == "it answered 503"


async def test_alerts_of_a_single_state_can_be_listed(client: aiohttp.ClientSession) -> None:
    found = await (await client.get("/api/alerts?state=resolved")).json()
    assert [one["name"] for one in found["alerts"]] == ["WaHostCpuHigh"]
    assert found["alerts"][0]["over"] == "2027-01-15T07:59:00.000Z"
    assert (await client.get("/api/alerts?state=angry")).status == 400


async def test_the_board_is_empty_before_the_first_look(house: House) -> None:
    key = await house.key("read")
    async with aiohttp.ClientSession(headers=key) as session:
        found = await (await session.get(f"{house.url}/api/alerts")).json()
        assert found == {"alerts": [], "looked": None, "alertmanager_problem": ""}
        assert (await session.post(f"{house.url}/api/database/check")).status == 403
    key = await house.key("operate")
    async with aiohttp.ClientSession(headers=key) as session:
        answer = await session.post(f"{house.url}/api/database/check")
        assert await answer.json() == {"good": True, "found": "ok"}
