"""A session of the baileys engine under a whole agent: scanned, talked to, killed, restored."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Eventually
from tests.daemon.conftest import PATIENT, RunningAgent
from tests.engines.baileys.conftest import ACCOUNT, PEER, cache, whatsapp
from tests.standin.baileys.run import WhatsApp

__all__ = ["cache", "whatsapp"]

SLOWER = {"WA_AGENT_HEALTH__TIMEOUT": "5", "WA_AGENT_HEALTH__INTERVAL": "5"}


async def test_a_session_is_scanned_killed_in_each_part_and_restored_without_a_code(
    make_agent: Callable[..., RunningAgent],
    whatsapp: WhatsApp,
    cache: Path,
    eventually: Eventually,
) -> None:
    agent = make_agent()
    agent.state.mkdir(mode=0o700)
    (agent.state / "cache").symlink_to(cache)
    await agent.start(PATIENT | SLOWER)
    body = {"id": "sales", "engine": "baileys", "settings": {"url": whatsapp.socket}}
    await agent.do("POST", "/api/instance", body)
    await eventually(lambda: agent.status("sales"), "QR_REQUIRED", within=40)
    code = await agent.do("GET", "/api/instance/sales/qr")
    await asyncio.to_thread(whatsapp.scan, code["qr"], ACCOUNT)
    await eventually(lambda: agent.status("sales"), "CONNECTED", within=40)
    shown = await agent.show("sales")
    assert (shown["account"], shown["paired"]) == (ACCOUNT, True)

    sent = await agent.do("POST", "/api/instance/sales/messages", {"to": PEER, "text": "the offer"})
    assert sent["outcome"] == "sent"
    await eventually(
        lambda: any(h["text"] == "the offer" for h in whatsapp.person(PEER).get("heard", []))
    )

    os.kill(await agent.pid("sales"), signal.SIGKILL)
    await eventually(lambda: whatsapp.device(ACCOUNT)["logins"] >= 2, within=40)
    await eventually(lambda: agent.status("sales"), "CONNECTED", within=40)
    await agent.stop()
    await agent.start(PATIENT | SLOWER)
    await eventually(lambda: agent.status("sales"), "CONNECTED", within=40)
    events = (await agent.do("GET", "/api/instance/sales/events?limit=500"))["events"]
    codes = [e for e in events if "QR_REQUIRED" in str(e["detail"].get("status"))]
    assert len(codes) == 1, "one scan is enough"
    assert "the offer" not in agent.log.read_text()
    assert code["qr"] not in agent.log.read_text()
