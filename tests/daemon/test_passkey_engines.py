"""Each engine under a real agent, on the process host: a passkey is asked for, or a code taken."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.conftest import Eventually
from tests.daemon.conftest import PATIENT, RunningAgent, remote_settings
from tests.daemon.test_baileys import SLOWER
from tests.daemon.test_web import ACCOUNT as PHONE
from tests.daemon.test_web import SETTINGS, create, stand_in
from tests.daemon.test_web import cache as web_cache
from tests.daemon.test_whaticket import StandIn as Desk
from tests.daemon.test_whaticket import desk, id_of, table_of
from tests.engines.baileys.conftest import ACCOUNT, cache, whatsapp
from tests.standin.baileys.run import WhatsApp
from tests.standin.web.stand_in import StandIn as Page

__all__ = ["cache", "desk", "stand_in", "web_cache", "whatsapp"]

pytestmark = pytest.mark.slow

Make = Callable[..., RunningAgent]
PAIRING = "\n[phases]\npairing = 1\n"


async def is_now(agent: RunningAgent, eventually: Eventually, id: str, reason: str) -> None:
    """It waits for its person with this reason; a certainty alone marks the account."""

    async def look() -> Any:
        found = await agent.show(id)
        return found["connection_status"], found["reason"], found["needs_passkey"]

    # A session shows its reason a moment before its record is saved.
    await eventually(look, ("QR_REQUIRED", reason, reason == "passkey_required"), within=40)


async def test_web_tells_what_its_page_asks_for_and_what_it_never_completes(
    make_agent: Make, stand_in: Page, web_cache: Path, eventually: Eventually
) -> None:
    agent = make_agent(PAIRING, base=SETTINGS)
    await agent.start(env={"CACHE_PATH": str(web_cache)})
    for id, becomes, reason in (
        ("wall", "ask", "passkey_required"),
        ("nowhere", "silent", "passkey_suspected"),
    ):
        await create(agent, stand_in, id)
        await eventually(lambda id=id: agent.status(id), "QR_REQUIRED", within=30)
        stand_in.passkey = becomes
        stand_in.scan(PHONE, id)
        await is_now(agent, eventually, id, reason)
        stand_in.passkey = ""


async def test_baileys_tells_what_whatsapp_asks_for_and_what_it_never_completes(
    make_agent: Make, whatsapp: WhatsApp, cache: Path, eventually: Eventually
) -> None:
    agent = make_agent(PAIRING)
    agent.state.mkdir(mode=0o700)
    (agent.state / "cache").symlink_to(cache)
    await agent.start(PATIENT | SLOWER)
    for id in ("wall", "nowhere"):
        body = {"id": id, "engine": "baileys", "settings": {"url": whatsapp.socket}}
        await agent.do("POST", "/api/instance", body)
        await eventually(lambda id=id: agent.status(id), "QR_REQUIRED", within=40)
    await agent.do("POST", "/api/instance/nowhere/pairing-code", {"phone": ACCOUNT})

    def entered() -> bool:
        with suppress(HTTPError):  # its request for a code is under way
            whatsapp.enter_code(ACCOUNT)
            return True
        return False

    await eventually(entered)
    await is_now(agent, eventually, "nowhere", "passkey_suspected")

    async def code() -> bool:
        return (await agent.ask("GET", "/api/instance/nowhere/qr"))[0] == 200

    await eventually(code, within=40)
    await is_now(agent, eventually, "nowhere", "passkey_suspected")
    whatsapp.asks_for_passkey(ACCOUNT, True)
    shown = await agent.do("GET", "/api/instance/wall/qr")
    await asyncio.to_thread(whatsapp.scan, shown["qr"], ACCOUNT)
    await is_now(agent, eventually, "wall", "passkey_required")


async def test_a_session_on_a_server_tells_both(
    make_agent: Make, desk: Desk, eventually: Eventually
) -> None:
    agent = make_agent(table_of(desk) + PAIRING, base=remote_settings())
    wall, nowhere = desk.add("7"), desk.add("8")
    await agent.start()

    async def shown() -> list[tuple[str, str]]:
        for session in (wall, nowhere):
            if session.status == "qrcode" or session.starts:
                await session.end()
                session.status, session.qrcode = "qrcode", "2@code"
        found = (await agent.do("GET", "/api/instances"))["instances"]
        return [(one["connection_status"], one["reason"]) for one in found]

    await eventually(shown, [("QR_REQUIRED", "waiting_for_scan")] * 2, within=30)
    wall.status, nowhere.status = "passkey_required", "PAIRING"
    await is_now(agent, eventually, await id_of(agent, "7"), "passkey_required")
    await is_now(agent, eventually, await id_of(agent, "8"), "passkey_suspected")
