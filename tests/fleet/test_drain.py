"""A machine is emptied while people write: real Baileys sessions, the stand-in for WhatsApp."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import Eventually
from tests.engines.baileys.conftest import cache, whatsapp
from tests.fleet.agents import FleetOfAgents, fleet_of_agents
from tests.standin.baileys.run import WhatsApp

__all__ = ["cache", "whatsapp"]

ACCOUNTS = {f"shop{number}": f"551190000000{number}" for number in range(2)}
PEERS = [f"55119000001{number:02d}" for number in range(3)]


@pytest.fixture
async def fleet(tmp_path: Path, cache: Path) -> AsyncIterator[FleetOfAgents]:
    env = {"CACHE_PATH": str(cache)}
    async with fleet_of_agents(("m1", "m2"), tmp_path, env=env) as fleet:
        yield fleet


async def scanned(
    fleet: FleetOfAgents, whatsapp: WhatsApp, id: str, eventually: Eventually
) -> None:
    settings = {"url": whatsapp.socket}
    body = {"id": id, "engine": "baileys", "settings": settings, "on": "m1"}
    await fleet["m1"].do("POST", "/api/instance", body)
    await eventually(lambda: fleet["m1"].status(id), "QR_REQUIRED", within=60)
    code = await fleet["m1"].do("GET", f"/api/instance/{id}/qr")
    await asyncio.to_thread(whatsapp.scan, code["qr"], ACCOUNTS[id])
    await eventually(lambda: fleet["m1"].status(id), "CONNECTED", within=60)


async def talk(whatsapp: WhatsApp, said: dict[str, list[str]]) -> None:
    """Peers write to every account, whatever its session does."""
    chance = random.Random(1)
    while True:
        for account in ACCOUNTS.values():
            peer = chance.choice(PEERS)
            said[account].append(await asyncio.to_thread(whatsapp.say, peer, account, "hello"))
        await asyncio.sleep(chance.uniform(0.0, 0.2))


@pytest.mark.slow
async def test_a_drain_loses_no_message_and_no_pairing(
    fleet: FleetOfAgents, whatsapp: WhatsApp, eventually: Eventually
) -> None:
    await asyncio.gather(*(scanned(fleet, whatsapp, id, eventually) for id in ACCOUNTS))
    await eventually(fleet.know_each_other, within=30)
    said: dict[str, list[str]] = {account: [] for account in ACCOUNTS.values()}
    talking = asyncio.create_task(talk(whatsapp, said))
    try:
        await eventually(lambda: all(len(ids) >= 5 for ids in said.values()), within=30)
        await fleet["m2"].do("POST", "/api/fleet/machines/m1/drain")
        await eventually(fleet.owners, dict.fromkeys(ACCOUNTS, "m2"), within=60)
        for id in ACCOUNTS:
            await eventually(lambda id=id: fleet["m2"].status(id), "CONNECTED", within=60)
        before = {account: len(ids) for account, ids in said.items()}
        await eventually(lambda: all(len(said[it]) > n + 5 for it, n in before.items()), within=30)
    finally:
        talking.cancel()
        await asyncio.wait({talking})

    def unread() -> list[str]:
        missing = []
        for account, ids in said.items():
            receipts = whatsapp.device(account)["receipts"]
            read = {it["id"] for it in receipts if it["type"] != "retry"}
            missing += [id for id in ids if id not in read]
        return missing

    await eventually(unread, [], within=30)
    assert whatsapp.overlaps() == []
    for account in ACCOUNTS.values():
        assert whatsapp.device(account)["logins"] == 2, "one before the drain, one after it"
    # An empty machine that may take sessions again.
    await fleet["m2"].do("POST", "/api/fleet/machines/m1/undrain")

    async def room() -> tuple[int, bool]:
        """A machine whose renewal was late shows the rows that it read before."""
        shown = {it["name"]: it for it in (await fleet["m1"].fleet())["machines"]}
        return shown["m1"]["sessions"], shown["m1"]["drained"]

    await eventually(room, (0, False))
