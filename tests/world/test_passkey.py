"""An account that needs a passkey to link, told, kept, and asked about twice."""

import json
import time

import pytest

from tests.world.test_vault import send


async def is_now(agent, eventually, id, status, reason=""):
    async def look():
        found = await agent.show(id)
        return found["connection_status"], found["reason"]

    await eventually(look, (status, reason))


async def scan(agent, eventually, id, fault):
    await eventually(lambda: agent.status(id), "QR_REQUIRED")
    await agent.do("POST", f"/api/instance/{id}/sandbox/fault", {"fault": fault})
    await agent.do("POST", f"/api/instance/{id}/sandbox/scan")


async def recorded(agent, id):
    return "passkey_required" in [kind for kind, _ in await agent.story(id)]


def stored(agent, id):
    return json.loads((agent.state / "sessions" / id / "instance.json").read_text())


async def pair_marked(agent, eventually, id):
    """Connected, and its account is known to need a passkey."""
    await agent.create(id)
    await eventually(lambda: agent.status(id), "CONNECTED")
    marked = await agent.do("PUT", f"/api/instance/{id}/passkey", {"needed": True})
    assert marked["needs_passkey"] is True


async def test_a_demand_for_a_passkey_is_reported_and_recorded(agent, eventually):
    await agent.create("wall", scan="manual")
    await scan(agent, eventually, "wall", "passkey")
    await is_now(agent, eventually, "wall", "QR_REQUIRED", "passkey_required")
    # It shows its reason a moment before its record is saved.
    await eventually(lambda: recorded(agent, "wall"))
    found = await agent.show("wall")
    assert found["needs_passkey"] is True
    assert "wa-agent pair" in found["sentence"]
    await agent.kill()
    await agent.start()
    await is_now(agent, eventually, "wall", "QR_REQUIRED", "passkey_required")
    assert (await agent.show("wall"))["needs_passkey"] is True
    assert stored(agent, "wall")["needs_passkey"] is True

    # An operator may take it out again, although the session still says so.
    await agent.do("PUT", "/api/instance/wall/passkey", {"needed": False})
    await eventually(lambda: stored(agent, "wall")["needs_passkey"], False)
    await agent.do("POST", "/api/instance/wall/health")
    assert (await agent.show("wall"))["needs_passkey"] is False


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/instance/sales/logout", {"confirm": True}),
        ("POST", "/api/instance/sales/cleanup", {"confirm": True}),
        ("POST", "/api/instance/sales/ensure-healthy", {"confirm": True}),
        ("DELETE", "/api/instance/sales", {}),
    ],
)
async def test_an_order_that_ends_a_passkey_pairing_must_name_it(
    agent, eventually, method, path, body
):
    await pair_marked(agent, eventually, "sales")
    for old in (body, {**body, "confirm_passkey": ""}, {**body, "confirm_passkey": "other"}):
        status, told = await agent.ask(method, path, old)
        assert (status, told["error"], told["field"]) == (409, "confirm_passkey", "confirm_passkey")
    assert (await agent.show("sales"))["paired"] is True
    status, told = await agent.ask(method, path, {**body, "confirm_passkey": "sales"})
    assert status < 300, told


async def test_neither_a_logout_nor_a_repair_replaces_it_and_a_copy_says_so_too(agent, eventually):
    await pair_marked(agent, eventually, "sales")
    file = agent.state / "sessions" / "sales" / "session" / "sandbox.json"
    await agent.do("POST", "/api/instance/sales/snapshots")
    newest = (await agent.do("GET", "/api/instance/sales/snapshots"))["snapshots"][0]["name"]
    path = agent.state / "sessions" / ".snapshots" / "sales" / newest / "manifest.json"
    assert json.loads(path.read_text())["needs_passkey"] is True

    await agent.fault("sales", "logout")
    await is_now(agent, eventually, "sales", "AUTH_FAILURE", "logout")
    begun = time.monotonic()
    status, told = await agent.ask("POST", "/api/instance/sales/ensure-healthy?wait=120")
    assert (status, told["error"]) == (503, "confirm_passkey"), told
    assert "the pairing is kept" in told["message"]
    assert time.monotonic() - begun < 60
    assert file.exists()
    assert (await agent.do("GET", "/api/trash"))["trash"] == []
    await agent.do("POST", f"/api/instance/sales/snapshots/{newest}/restore", {"force": True})
    assert (await agent.show("sales"))["needs_passkey"] is True
    await eventually(lambda: stored(agent, "sales")["needs_passkey"], True)

    # An archive says it wherever it goes, and a database that is rebuilt from the folders.
    _, archive = await send(agent, "/api/instance/sales/export")
    status, told = await send(agent, "/api/import?id=copy", archive)
    assert (status, json.loads(told)["error"]) == (409, "same_device")
    await agent.do("DELETE", "/api/instance/sales", {"confirm_passkey": "sales"})
    assert (await send(agent, "/api/import?id=copy", archive))[0] == 201
    assert stored(agent, "copy")["needs_passkey"] is True
    await agent.stop()
    agent.lose_database()
    await agent.start()
    assert (await agent.show("copy"))["needs_passkey"] is True
