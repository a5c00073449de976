"""A session of the baileys engine under a whole agent: scanned, talked to, killed, restored."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

from agent.files import write_whole
from scripts.benches.processes import children
from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent, done
from tests.engines.baileys.conftest import ACCOUNT, PEER, cache, whatsapp
from tests.standin.baileys.run import WhatsApp

__all__ = ["cache", "whatsapp"]

SLOWER = {"WA_AGENT_HEALTH__INTERVAL": "5"}


async def a_scanned_session(
    agent: RunningAgent, whatsapp: WhatsApp, cache: Path, eventually: Eventually
) -> str:
    """Start the agent, and the instance `sales` on it, connected; the code that was scanned."""
    agent.state.mkdir(mode=0o700)
    (agent.state / "cache").symlink_to(cache)
    await agent.start(SLOWER)
    body = {"id": "sales", "engine": "baileys", "settings": {"url": whatsapp.socket}}
    await agent.do("POST", "/api/instance", body)
    await eventually(lambda: agent.status("sales"), "QR_REQUIRED")
    code = await agent.do("GET", "/api/instance/sales/qr")
    await asyncio.to_thread(whatsapp.scan, code["qr"], ACCOUNT)
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    return str(code["qr"])


async def test_a_session_is_scanned_killed_in_each_part_and_restored_without_a_code(
    make_agent: Callable[..., RunningAgent], whatsapp: WhatsApp, cache: Path, eventually: Eventually
) -> None:
    agent = make_agent()
    code = await a_scanned_session(agent, whatsapp, cache, eventually)
    shown = await agent.show("sales")
    assert (shown["account"], shown["paired"]) == (ACCOUNT, True)

    sent = await agent.do(
        "POST", "/api/instance/sales/messages?wait=30", {"to": PEER, "text": "the offer"}
    )
    assert sent["outcome"] == "sent"
    await eventually(
        lambda: any(h["text"] == "the offer" for h in whatsapp.person(PEER).get("heard", []))
    )

    session = agent.state / "sessions" / "sales" / "session"
    next(session.glob("session-*900000002*")).write_bytes(b"")
    await asyncio.to_thread(whatsapp.say, PEER, ACCOUNT, "the question")
    (words,) = await eventually(lambda: agent.told("sales", "key_unreadable"))
    assert "of contact #" in words and "moved to removed-keys/unreadable" in words
    assert words in (agent.state / "run" / "sales" / "worker.log").read_text()
    assert whatsapp.device(ACCOUNT)["logins"] == 1

    whatsapp.trouble(ACCOUNT, "unanswered")
    message, key = {"to": PEER, "text": "only once"}, {"Idempotency-Key": "of this message"}
    path = "/api/instance/sales/messages?wait=30"
    sending = asyncio.create_task(agent.ask("POST", path, message, key))

    def heard() -> list[str]:
        return [h["id"] for h in whatsapp.person(PEER)["heard"] if h["text"] == "only once"]

    await eventually(heard)
    (node,) = children([await agent.pid("sales")])
    os.kill(node, signal.SIGKILL)
    whatsapp.trouble(ACCOUNT, "none")
    await sending
    await eventually(lambda: whatsapp.device(ACCOUNT)["logins"] >= 2)
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    # It may have gone out, so it is repeated under its id, which phones show once.
    status, answer = await agent.ask("POST", path, message, key)
    assert (status, answer["outcome"]) == (200, "sent")
    assert set(heard()) == {answer["message_id"]}

    os.kill(await agent.pid("sales"), signal.SIGKILL)
    await eventually(lambda: whatsapp.device(ACCOUNT)["logins"] >= 3)
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    await agent.stop()
    await agent.start(SLOWER)
    await eventually(lambda: agent.status("sales"), "CONNECTED")

    await starts_again_when_its_own_files_are_back(agent, whatsapp, eventually)
    events = (await agent.do("GET", "/api/instance/sales/events?limit=500"))["events"]
    codes = [e for e in events if "QR_REQUIRED" in str(e["detail"].get("status"))]
    assert len(codes) == 1, "one scan is enough"
    assert "the offer" not in agent.log.read_text()
    assert code not in agent.log.read_text()


async def starts_again_when_its_own_files_are_back(
    agent: RunningAgent, whatsapp: WhatsApp, eventually: Eventually
) -> None:
    """WhatsApp would answer a login with a changed digit by a logout."""
    logins = whatsapp.device(ACCOUNT)["logins"]
    await agent.do("POST", "/api/instance/sales/disable")
    await eventually(lambda: agent.pid("sales"), 0)
    creds = agent.state / "sessions/sales/session/creds.json"
    whole = creds.read_bytes()
    # In one step: the agent looks at any moment, and half a file is another fault.
    write_whole(creds, whole.replace(f'"id":"{ACCOUNT}:'.encode(), f'"id":"{ACCOUNT}:9'.encode()))
    await agent.do("POST", "/api/instance/sales/enable")

    async def reason() -> str:
        return str((await agent.show("sales"))["health"]["reason"])

    await eventually(reason, "session_foreign")
    assert whatsapp.device(ACCOUNT)["logins"] == logins
    write_whole(creds, whole)
    await eventually(lambda: agent.status("sales"), "CONNECTED", within=60)
    assert ("action", "restart: its own files are back") in await agent.story("sales")


async def test_missing_packages_are_named_everywhere_and_found_when_they_are_there(
    make_agent: Callable[..., RunningAgent], whatsapp: WhatsApp, cache: Path, eventually: Eventually
) -> None:
    agent = make_agent()
    await agent.start(SLOWER)
    body = {"id": "sales", "engine": "baileys", "settings": {"url": whatsapp.socket}}
    await agent.do("POST", "/api/instance", body)

    async def reason() -> str:
        return str((await agent.show("sales"))["reason"])

    await eventually(reason, "parts_missing")
    for words in (("list",), ("show", "sales"), ("why", "sales")):
        assert "packages of the baileys engine" in await done(agent, *words)
    assert "wa-agent doctor" in await done(agent, "why", "sales")
    assert any(
        "packages of the baileys engine" in sentence for _, sentence in await agent.story("sales")
    )
    (agent.state / "cache").symlink_to(cache)
    await eventually(lambda: agent.status("sales"), "QR_REQUIRED", within=90)
