"""Archives and snapshots of a session through any machine; an import takes the id in the fleet."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.vault.identity import read_identity
from tests.conftest import Eventually
from tests.fleet.agents import BEGINS_WITHIN, FleetAgent, FleetOfAgents, fleet_of_agents
from tests.fleet.test_kills import ended, killed_at
from tests.fleet.test_membership import is_paired
from tests.fleet.test_owners import here, owned_by


def client_of(agent: FleetAgent) -> aiohttp.ClientSession:
    connector = aiohttp.UnixConnector(str(agent.state / "api.sock"))
    return aiohttp.ClientSession("http://localhost", connector=connector)


async def exported(agent: FleetAgent, id: str) -> bytes:
    async with (
        client_of(agent) as client,
        client.post(f"/api/instance/{id}/export", json={}) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return await answer.read()


async def imported(agent: FleetAgent, archive: bytes, **query: str) -> tuple[int, Any]:
    """A busy database may let the agent ask for another try."""
    headers = {"Content-Type": "application/gzip"}
    async with asyncio.timeout(BEGINS_WITHIN), client_of(agent) as client:
        while True:
            asked = client.post("/api/import", data=archive, params=query, headers=headers)
            async with asked as answer:
                if answer.status != 503:
                    return answer.status, await answer.json()
            await asyncio.sleep(0.1)


async def copied_since(fleet: FleetOfAgents, id: str, moment: str) -> bool:
    statement = f"SELECT FROM wa_agent.copy WHERE session = '{id}' AND written_at > '{moment}'"
    return bool(await fleet.rows(statement)) and await fleet.copied([id])


async def test_a_session_is_exported_and_restored_through_another_machine_and_imported_on_it(
    tmp_path: Path, eventually: Eventually
) -> None:
    async with fleet_of_agents(["a", "b"], tmp_path) as fleet:
        a, b = fleet["a"], fleet["b"]
        await fleet.create("shop", on="b")
        await eventually(lambda: fleet.connected(["shop"]), within=30)
        await eventually(fleet.know_each_other, within=30)
        await b.do("POST", "/api/instance/shop/move", {"to": "a"})
        await eventually(lambda: here(a, ["shop"]), within=30)
        await eventually(lambda: fleet.connected(["shop"]), within=30)
        await eventually(lambda: is_paired(b, "shop"), within=20)
        archive = await exported(b, "shop")
        taken = await b.do("POST", "/api/instance/shop/snapshots")
        ((moment,),) = await fleet.rows("SELECT now()::text")
        path = f"/api/instance/shop/snapshots/{taken['name']}/restore"
        assert (await b.do("POST", path, {"force": True}))["trash"]
        await eventually(lambda: copied_since(fleet, "shop", moment), within=20)
        await eventually(lambda: fleet.connected(["shop"]), within=30)
        # The folder is still the one of this ownership, and needs its lease.
        kept = json.loads((a.state / "sessions/shop/instance.json").read_text())
        assert (kept["fleet_epoch"], kept["leased"]) == (1, True)

        status, answer = await imported(b, archive, enable="true")
        assert (status, answer["error"]) == (409, "exists")
        assert "machine a of the fleet has it" in answer["message"]
        assert await here(b, []) and await owned_by(fleet, "a", "shop")

        await b.do("DELETE", "/api/instance/shop", {"confirm": "shop"})
        status, answer = await imported(b, archive, enable="true")
        assert (status, answer["paired"]) == (201, True)
        assert await fleet.owners() == {"shop": "b"}
        await eventually(lambda: fleet.connected(["shop"]), within=30)
        assert read_identity(b.state / "sessions/shop").instance.leased
        await eventually(lambda: fleet.copied(["shop"]), within=20)


async def test_an_import_that_is_killed_after_it_took_the_id_is_made_again(
    tmp_path: Path, eventually: Eventually
) -> None:
    async with fleet_of_agents(["a"], tmp_path) as fleet:
        a = fleet["a"]
        await fleet.create("shop", on="a")
        await eventually(lambda: fleet.connected(["shop"]), within=30)
        await eventually(lambda: is_paired(a, "shop"), within=20)
        archive = await exported(a, "shop")
        await a.do("DELETE", "/api/instance/shop", {"confirm": "shop"})
        await killed_at(a, "fleet_claimed")
        with pytest.raises(aiohttp.ClientError):
            await imported(a, archive)
        await ended(a)
        assert await fleet.owners() == {"shop": "a"}
        await a.boot()
        await eventually(lambda: here(a, ["shop"]), within=20)
        status, answer = await imported(a, archive, replace="true", enable="true")
        assert status == 201, answer
        await eventually(lambda: fleet.connected(["shop"]), within=30)
        await eventually(lambda: fleet.copied(["shop"]), within=20)
