"""A plain Baileys bot under a whole agent: its pairing is copied, and comes back from the copy."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Eventually
from tests.daemon.conftest import PATIENT, RunningAgent
from tests.daemon.test_vault import cli
from tests.engines.baileys.conftest import ACCOUNT, whatsapp
from tests.standin.baileys.run import HERE, WhatsApp

__all__ = ["whatsapp"]

PROGRAM = """
[[program]]
name = "shopbot"
command = ["{node}", "{bot}"]
environment = ["WHATSAPP={url}"]
"""
SLOWER = {"WA_AGENT_HEALTH__TIMEOUT": "5", "WA_AGENT_HEALTH__INTERVAL": "5"}


async def paired(
    make_agent: Callable[..., RunningAgent], whatsapp: WhatsApp, eventually: Eventually
) -> RunningAgent:
    bot = HERE / "bots" / "plain.mjs"
    agent = make_agent(PROGRAM.format(node=shutil.which("node"), bot=bot, url=whatsapp.socket))
    await agent.start(PATIENT | SLOWER)
    body = {"id": "shop", "engine": "program", "settings": {"program": "shopbot"}}
    await agent.do("POST", "/api/instance", body)
    await eventually(lambda: agent.status("shop"), "QR_REQUIRED", within=40)
    code = await agent.do("GET", "/api/instance/shop/qr")
    await asyncio.to_thread(whatsapp.scan, code["qr"], ACCOUNT)
    await eventually(lambda: agent.status("shop"), "CONNECTED", within=40)
    return agent


async def test_a_logout_takes_the_pairing_and_leaves_the_bots_own_files(
    make_agent: Callable[..., RunningAgent], whatsapp: WhatsApp, eventually: Eventually
) -> None:
    agent = await paired(make_agent, whatsapp, eventually)
    session = agent.state / "sessions" / "shop" / "session"
    (session / "orders.sqlite").write_text("orders")
    (session / "media").mkdir()
    (session / "media" / "photo.jpg").write_text("photo")
    (other := session / "second").mkdir()
    for name in ("creds.json", "pre-key-9.json"):
        shutil.copy(session / "auth_info_baileys" / name, other)
    creds = json.loads((other / "creds.json").read_text())
    creds["me"]["id"] = creds["me"]["id"].replace(ACCOUNT, "5511900000009")
    (other / "creds.json").write_text(json.dumps(creds))
    lost = session.stat().st_ino
    await asyncio.to_thread(whatsapp.trouble, ACCOUNT, "conflict", type="device_removed")
    await eventually(lambda: session.exists() and session.stat().st_ino != lost, within=60)
    await eventually(lambda: agent.status("shop"), "QR_REQUIRED", within=60)
    assert (session / "orders.sqlite").read_text() == "orders"
    assert (session / "media" / "photo.jpg").read_text() == "photo"
    assert json.loads((other / "creds.json").read_text()) == creds
    (retired,) = (agent.state / "sessions" / ".trash").glob("shop.*/session")
    assert (retired / "auth_info_baileys" / "creds.json").exists()
    assert not (retired / "orders.sqlite").exists()


async def test_damaged_credentials_of_a_bot_come_back_from_a_copy_without_a_scan(
    make_agent: Callable[..., RunningAgent], whatsapp: WhatsApp, eventually: Eventually
) -> None:
    agent = await paired(make_agent, whatsapp, eventually)
    shown = await agent.show("shop")
    assert (shown["account"], shown["paired"]) == (ACCOUNT, True)

    copy = await agent.do("POST", "/api/instance/shop/snapshots")
    await agent.do("POST", "/api/instance/shop/stop")
    folder = agent.state / "sessions" / "shop" / "session" / "auth_info_baileys"

    async def reason() -> str:
        return str((await agent.show("shop"))["health"]["reason"])

    await eventually(lambda: agent.pid("shop"), 0, within=40)
    damaged = b"\0" * 900
    (folder / "creds.json").write_bytes(damaged)
    await agent.do("POST", "/api/instance/shop/start")
    await eventually(reason, "session_damaged", within=40)
    # The bot alone would have taken them for none, and begun anew in their place.
    assert (folder / "creds.json").read_bytes() == damaged
    path = f"/api/instance/shop/snapshots/{copy['name']}/restore"
    await agent.do("POST", path, {"force": True})
    await agent.do("POST", "/api/instance/shop/start")
    await eventually(lambda: agent.status("shop"), "CONNECTED", within=60)
    assert len(whatsapp.devices()) == 1


async def test_a_copy_of_a_bots_own_folder_is_not_imported_beside_it(
    make_agent: Callable[..., RunningAgent],
    whatsapp: WhatsApp,
    eventually: Eventually,
    tmp_path: Path,
) -> None:
    """The bots keep their session where the agent does not look."""
    bot, node = HERE / "bots" / "plain.mjs", shutil.which("node")
    (tmp_path / "first").mkdir()
    table = PROGRAM.replace("shopbot", "first") + f'folder = "{tmp_path / "first"}"\n'
    agent = make_agent(table.format(node=node, bot=bot, url=whatsapp.socket))
    await agent.start(PATIENT | SLOWER)

    body = {"id": "first", "engine": "program", "settings": {"program": "first"}}
    await agent.do("POST", "/api/instance", body)
    await eventually(lambda: agent.status("first"), "QR_REQUIRED", within=60)
    code = await agent.do("GET", "/api/instance/first/qr")
    await asyncio.to_thread(whatsapp.scan, code["qr"], ACCOUNT)
    await eventually(lambda: agent.status("first"), "CONNECTED", within=60)
    store = tmp_path / "first" / "auth_info_baileys"
    await agent.do("POST", "/api/instance/first/stop")
    await eventually(lambda: agent.pid("first"), 0, within=40)
    status, said = await cli(agent, "import", store, "imported", "--stopped", "--json")
    assert (status, json.loads(said)["error"]) == (4, "same_device"), said
