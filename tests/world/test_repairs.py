"""Repairs by the real agent: each fault of the sandbox ends where it should, with an event."""

from dataclasses import fields

from agent.engines.sandbox.rules import SandboxSettings
from tests.waiting import connected

# what the agent does by itself


async def test_a_zombie_gets_a_fresh_worker_at_once(agent, eventually):
    await connected(agent, eventually, "a")
    before = await agent.run_of("a")
    await agent.fault("a", "zombie")
    await eventually(lambda: agent.told("a", "repair_over"), ["recovered: connected"])
    assert await agent.steps() == ["restart"]
    story = [sentence for _, sentence in await agent.story("a")]
    assert "stuck: it does not answer: 3 pings failed in a row" in story
    shown = await agent.show("a")
    assert (shown["connection_status"], shown["paired"]) == ("CONNECTED", True)
    assert shown["unit"]["run"] != before
    counted = {(one["step"], one["result"]): one["count"] for one in shown["repair_steps"]}
    assert counted == {("restart", "done"): 1}
    tally = await agent.do("GET", "/api/repairs/statistics")
    assert (tally["repaired"], tally["failed"], tally["success_rate"]) == (1, 0, 1.0)
    assert tally["checked"] > 3


async def test_a_disabled_session_is_never_acted_on(agent, eventually):
    await connected(agent, eventually, "a")
    await agent.fault("a", "zombie")
    await agent.do("POST", "/api/instance/a/disable")
    await eventually(agent.unit_state, "inactive")
    before = await agent.story("a")
    for _ in range(3):
        await agent.do("POST", "/api/health/check")
    for word in ("recover", "cleanup", "ensure-healthy"):
        status, found = await agent.ask("POST", f"/api/instance/a/{word}", CONFIRM.get(word))
        assert (status, found["error"]) == (409, "not_wanted")
    status, _ = await agent.ask("POST", "/force-reconnection/a")
    assert status == 409
    after = await agent.story("a")
    assert [one for one in after[len(before) :] if one[0] in ("action", "repair")] == []
    assert (await agent.show("a"))["paired"] is True


CONFIRM = {"cleanup": {"confirm": True}}


# what a request asks for


async def test_a_cleanup_ends_a_pairing_only_when_it_is_meant_and_can_be_taken_back(
    agent, eventually
):
    await connected(agent, eventually, "a")
    device = agent.device()
    await agent.do("PATCH", "/api/instance/a", {"settings": {"scan": "manual"}})
    status, found = await agent.ask("POST", "/api/instance/a/cleanup")
    assert (status, found["error"]) == (409, "would_unpair")
    assert await agent.status("a") == "CONNECTED"
    found = await agent.do("POST", "/api/instance/a/cleanup?wait=120", {"confirm": True})
    assert (found["healthy"], found["cleaned"]) == (True, True)
    assert await agent.status("a") == "QR_REQUIRED"
    assert await agent.steps() == ["back_up", "cleanup"]
    (gone,) = (await agent.do("GET", "/api/trash"))["trash"]
    await agent.do("DELETE", "/api/instance/a")
    await agent.do("POST", f"/api/trash/{gone['name']}/restore")
    await agent.do("POST", "/api/instance/a/enable")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert agent.device() == device


async def test_a_setup_creates_repairs_and_never_logs_its_code(
    agent, eventually, monkeypatch, caplog
):
    """The phone scans when the test asks for it: a set-up names no settings."""
    made, names = SandboxSettings.__init__, [each.name for each in fields(SandboxSettings)]
    at = names.index("scan")
    defaults = (*made.__defaults__[:at], "manual", *made.__defaults__[at + 1 :])
    monkeypatch.setattr(made, "__defaults__", defaults)
    body = {"name": "Sales desk", "instanceName": "sales", "engine": "sandbox"}
    made = await agent.do("POST", "/api/v1/whatsapp/setup?wait=120", body)
    assert (made["created"], made["status"]) == (True, "QR_REQUIRED")
    assert made["qr"]
    assert made["qr"] not in caplog.text
    assert made["qr"] not in str(await agent.do("GET", "/api/events?limit=500"))
    await agent.do("POST", "/api/instance/sales/sandbox/scan")
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    again = await agent.do("POST", "/api/v1/whatsapp/setup?wait=120", body)
    assert (again["created"], again["status"], again["qr"]) == (False, "CONNECTED", None)
    await agent.fault("sales", "ban")
    await eventually(lambda: agent.status("sales"), "AUTH_FAILURE")
    code = await agent.do("POST", "/api/v1/whatsapp/setup?wait=120", body | {"confirm": True})
    assert (code["status"], code["cleaned"]) == ("QR_REQUIRED", True), "for another account"
