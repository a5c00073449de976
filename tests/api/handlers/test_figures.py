"""Figures as JSON under the names that were promised, and only what a key may see."""

from typing import Any

import aiohttp
import pytest

from agent.api.http.call import plain_path
from agent.api.routes import ROUTES
from agent.clock import boot_now
from agent.core.model import InstanceId
from tests.api.conftest import House
from tests.fakes.supervisor import make_view
from tests.sessions import changed

INSTANCE = {
    *("connectionUptime", "messagesProcessed", "messagesPerMinute", "averageResponseTime"),
    *("errorCount", "reconnectCount"),
}
SYSTEM = {"totalMemory", "usedMemory", "cpuUsage", "activeConnections", "errorRate"}


@pytest.fixture
def peopled(house: House) -> House:
    figures: dict[str, Any] = {
        "messages": {"in": 5, "out": 3, "ack": 3},
        "messages_per_minute": {"in": 2, "out": 1},
        "probes": 4,
        "probe_seconds": 900.0,
        "response_seconds": 0.125,
        "errors": {"crypto": 1, "page_crashed": 2},
        "reconnects": {"connection_lost": 2},
        "memory_limit": 1 << 29,
    }
    for id, more in (("sales", figures), ("new", {"memory_bytes": None, "linked_since": None})):
        house.supervisor.known[InstanceId(id)] = make_view(id, **more)
    return house


async def test_performance_metrics(peopled: House) -> None:
    for done in (0, 3):
        counted = {"sales": {"errors": done, "done": 5 * done}}
        peopled.server._parts.windows.note(counted, boot_now())
    async with peopled.local(base_url="http://localhost") as local:
        found = await (await local.get("/performance-metrics")).json()
        described = await (await local.get("/openapi.json")).json()
    sales = found["instances"]["sales"]
    assert set(sales) == INSTANCE
    assert 59 <= sales.pop("connectionUptime") <= 120
    assert sales == {
        "messagesProcessed": 8,
        "messagesPerMinute": 3,
        "averageResponseTime": 0.125,
        "errorCount": 3,
        "reconnectCount": 2,
    }
    assert found["instances"]["new"]["averageResponseTime"] is None
    system = found["system"]
    assert set(system) >= SYSTEM
    assert 0 < system["usedMemory"] < system["totalMemory"]
    assert 0 <= system["cpuUsage"] <= 1
    assert system["activeConnections"] == 1
    assert system["errorRate"] == 0.1667, "3 of 18"
    summary = described["paths"]["/performance-metrics"]["get"]["summary"]
    assert "averageResponseTime: mean seconds" in summary
    assert {"/performance-metrics", "/api/memory/report", "/api/caller"} <= set(described["paths"])


async def test_the_memory_report(peopled: House) -> None:
    async with peopled.local(base_url="http://localhost") as local:
        found = await (await local.get("/api/memory/report")).json()
    assert set(found["system"]) >= SYSTEM
    assert found["agentMemory"] > 1 << 20
    assert found["sessionsMemory"] == 10_000_000
    assert found["instances"] == {
        "new": {"usedMemory": None, "memoryLimit": None, "processes": 1},
        "sales": {"usedMemory": 10_000_000, "memoryLimit": 1 << 29, "processes": 1},
    }


async def test_a_key_of_one_instance_sees_that_one_only(peopled: House) -> None:
    key = await peopled.key("instance:new")
    async with aiohttp.ClientSession(peopled.url, headers=key) as session:
        found = await (await session.get("/performance-metrics")).json()
        assert set(found) == {"instances"}
        assert set(found["instances"]) == {"new"}
        assert (await session.get("/api/memory/report")).status == 403
        caller = await (await session.get("/api/caller")).json()
        assert caller == {"name": "key a test", "level": "", "instances": ["new"]}


async def test_a_listed_instance_says_what_the_dashboard_shows(peopled: House) -> None:
    id = InstanceId("sales")
    view = peopled.supervisor.known[id]
    peopled.supervisor.known[id] = changed(
        view,
        circuit="open",
        circuit_opens_wall=1768471200.0,
        reason="an incident",
        wait_reason="an incident",
        proof_age=2.5,
    )
    async with peopled.local(base_url="http://localhost") as local:
        found = await (await local.get("/api/instances")).json()
    sales = next(one for one in found["instances"] if one["id"] == "sales")
    assert sales["circuit"] == "open"
    assert sales["circuit_opens"] == "2026-01-15T10:00:00.000Z"
    assert sales["wait_reason"] == sales["wait_sentence"] == "an incident"
    assert sales["proved"] > sales["since"], "a moment ago, and connected for a minute"


async def test_failures_of_every_route_are_counted_from_nothing_on(peopled: House) -> None:
    """Else Prometheus' increase() would not see the first ones."""
    async with peopled.local(base_url="http://localhost") as local:
        lines = (await (await local.get("/metrics")).text()).splitlines()
    name = "wa_agent_http_requests_total"
    for route in ROUTES:
        labels = f'method="{route.method}",route="{plain_path(route.path)}"'
        for code in (500, 502, 503):
            assert f'{name}{{code="{code}",{labels}}} 0.0' in lines
