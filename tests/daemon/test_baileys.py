"""A session of the baileys engine under a whole agent: scanned, talked to, killed, restored."""

import asyncio
import hashlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.files import write_whole
from scripts.benches.processes import children
from tests.conftest import Eventually
from tests.daemon.conftest import LOOKS_OFTEN, PATIENT, RunningAgent
from tests.daemon.test_vault import cli
from tests.engines.baileys.conftest import ACCOUNT, PEER, cache, whatsapp
from tests.lacking import lacks
from tests.standin.baileys.run import BaileysServer, WhatsApp, make_certificate, why_not
from tests.waiting import GrowingLog

__all__ = ["cache", "whatsapp"]

MISBEHAVE = Path(__file__).parents[1] / "engines" / "baileys" / "misbehave.mjs"
MISBEHAVIOURS = {
    "garbage": "it sent 3 lines that are no JSON objects",
    "flood": "it sent more than 50000 lines within 10 s",
    "hang": "its loop did not answer within",
}
"""How Node misbehaves → what its session's log says of it. A leak is ended by the host."""
MESSAGES = "/api/instance/sales/messages?wait=30"
READ = ("delivered", "inactive")
"""Receipts of a message that could be read."""
SLOWER = {"WA_AGENT_HEALTH__TIMEOUT": "5", "WA_AGENT_HEALTH__INTERVAL": "5"}


async def a_scanned_session(
    agent: RunningAgent, whatsapp: WhatsApp, cache: Path, eventually: Eventually
) -> str:
    """Start the agent, and the instance `sales` on it, connected; the code that was scanned."""
    agent.state.mkdir(mode=0o700)
    (agent.state / "cache").symlink_to(cache)
    await agent.start(PATIENT | SLOWER)
    body = {"id": "sales", "engine": "baileys", "settings": {"url": whatsapp.socket}}
    await agent.do("POST", "/api/instance", body)
    await eventually(lambda: agent.status("sales"), "QR_REQUIRED", within=40)
    code = await agent.do("GET", "/api/instance/sales/qr")
    await asyncio.to_thread(whatsapp.scan, code["qr"], ACCOUNT)
    await eventually(lambda: agent.status("sales"), "CONNECTED", within=40)
    return str(code["qr"])


async def test_a_session_is_scanned_killed_in_each_part_and_restored_without_a_code(
    make_agent: Callable[..., RunningAgent],
    whatsapp: WhatsApp,
    cache: Path,
    eventually: Eventually,
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

    async def told() -> list[str]:
        return [words for kind, words in await agent.story("sales") if kind == "key_unreadable"]

    (words,) = await eventually(told)
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
    status, answer = await sending
    assert (status, answer["state"]) == (202, "accepted")
    whatsapp.trouble(ACCOUNT, "none")
    await eventually(lambda: whatsapp.device(ACCOUNT)["logins"] >= 2, within=40)
    await eventually(lambda: agent.status("sales"), "CONNECTED", within=40)
    # It may have gone out, so it is repeated under its id, which phones show once.
    status, answer = await agent.ask("POST", path, message, key)
    assert (status, answer["outcome"]) == (200, "sent")
    assert set(heard()) == {answer["id"]}

    os.kill(await agent.pid("sales"), signal.SIGKILL)
    await eventually(lambda: whatsapp.device(ACCOUNT)["logins"] >= 3, within=40)
    await eventually(lambda: agent.status("sales"), "CONNECTED", within=40)
    await agent.stop()
    await agent.start(PATIENT | SLOWER)
    await eventually(lambda: agent.status("sales"), "CONNECTED", within=40)

    await starts_again_when_its_own_files_are_back(agent, eventually)
    events = (await agent.do("GET", "/api/instance/sales/events?limit=500"))["events"]
    codes = [e for e in events if "QR_REQUIRED" in str(e["detail"].get("status"))]
    assert len(codes) == 1, "one scan is enough"
    assert "the offer" not in agent.log.read_text()
    assert code not in agent.log.read_text()


async def starts_again_when_its_own_files_are_back(
    agent: RunningAgent, eventually: Eventually
) -> None:
    await agent.do("POST", "/api/instance/sales/disable")
    await eventually(lambda: agent.pid("sales"), 0, within=40)
    creds = agent.state / "sessions/sales/session/creds.json"
    whole = creds.read_bytes()
    # In one step: the agent looks at any moment, and half a file is another fault.
    write_whole(creds, whole.replace(f'"id":"{ACCOUNT}:'.encode(), f'"id":"{ACCOUNT}:9'.encode()))
    await agent.do("POST", "/api/instance/sales/enable")

    async def reason() -> str:
        return str((await agent.show("sales"))["health"]["reason"])

    await eventually(reason, "session_foreign", within=40)
    write_whole(creds, whole)
    await eventually(lambda: agent.status("sales"), "CONNECTED", within=60)
    assert ("action", "restart: its own files are back") in await agent.story("sales")


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_many_messages_and_a_long_file_pass_below_the_memory_limit(
    make_agent: Callable[..., RunningAgent],
    tmp_path: Path,
    cache: Path,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """3,000 messages in and 16 MiB out; the process host kills above the limit, and what the kernel
    counted for Node at its highest is below it, too. A third of what it may use by default; 24 KiB
    that each message left behind would be found."""
    if reason := why_not("baileys"):
        lacks(reason)
    key, certificate = make_certificate(tmp_path)
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(certificate))
    limit, after_messages, count = 200 << 20, 160 << 20, 3_000
    whatsapp = WhatsApp(tmp_path / "whatsapp.log", (key, certificate))
    try:
        agent = make_agent()
        agent.first = LOOKS_OFTEN
        settings = agent.config.read_text().replace("[worker]", f"[worker]\nmemory_max = {limit}")
        agent.config.write_text(settings)
        await a_scanned_session(agent, whatsapp, cache, eventually)
        worker = await agent.pid("sales")
        (node,) = children([worker])
        await asyncio.to_thread(whatsapp.say_many, PEER, ACCOUNT, count)
        await eventually(lambda: whatsapp.device(ACCOUNT)["unconfirmed"], 0, within=400)
        receipts = whatsapp.device(ACCOUNT)["receipts"]
        assert len({each["id"] for each in receipts if each["type"] != "retry"}) >= count

        async def counted() -> int:
            return int((await agent.show("sales"))["messages"]["in"])

        await eventually(counted, count, within=60)
        assert most_used(node) < after_messages

        file = tmp_path / "offer.pdf"
        file.write_bytes(os.urandom(16 << 20))
        status, said = await cli(agent, "send", "sales", PEER, "the offer", "--file", file)
        assert (status, "sent" in said) == (0, True), said
        (heard,) = await eventually(lambda: whatsapp.person(PEER).get("heard"))
        assert heard["file"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()

        assert await agent.pid("sales") == worker and children([worker]) == {node}
        assert whatsapp.device(ACCOUNT)["logins"] == 1
        assert most_used(node) < limit
    finally:
        whatsapp.end()


def most_used(pid: int) -> int:
    """Bytes that the kernel counted for it at its highest."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


async def test_contacts_renew_their_keys_by_themselves_after_an_old_copy_was_put_back(
    make_agent: Callable[..., RunningAgent],
    whatsapp: WhatsApp,
    cache: Path,
    eventually: Eventually,
    tmp_path: Path,
) -> None:
    """Twelve write three messages each at once: all are read, and nothing is repaired."""
    contacts = [f"55119100000{number:02}" for number in range(12)]

    async def write(count: int) -> list[str]:
        """All at once; returns when each is read."""
        say = (
            asyncio.to_thread(whatsapp.say, contact, ACCOUNT, f"message {number}")
            for contact in contacts
            for number in range(count)
        )
        ids = set(await asyncio.gather(*say))

        def unread() -> set[str]:
            read = whatsapp.device(ACCOUNT)["receipts"]
            return ids - {each["id"] for each in read if each["type"] in READ}

        await eventually(unread, set(), within=60)
        return sorted(ids)

    async def running(is_wanted: bool) -> None:
        await agent.do("POST", f"/api/instance/sales/{'enable' if is_wanted else 'disable'}")
        await eventually(lambda: whatsapp.device(ACCOUNT)["connected"], is_wanted, within=40)

    agent = make_agent()
    await a_scanned_session(agent, whatsapp, cache, eventually)
    session, old = agent.state / "sessions" / "sales" / "session", tmp_path / "old"
    await write(1)
    await running(False)
    shutil.copytree(session, old)
    await running(True)
    await eventually(lambda: agent.status("sales"), "CONNECTED", within=40)
    for contact in contacts:
        await agent.do("POST", MESSAGES, {"to": contact, "text": "and you?"})
    await write(1)
    await running(False)
    shutil.rmtree(session)
    shutil.copytree(old, session)
    before = (await agent.show("sales"))["crypto_operations"]["failed"]
    await running(True)
    retries = [whatsapp.person(contact)["retries"] for contact in contacts]

    await write(3)
    assert all(
        whatsapp.person(contact)["retries"] > count
        for contact, count in zip(contacts, retries, strict=True)
    )

    async def errors() -> tuple[int, bool]:
        shown = await agent.show("sales")
        failed = shown["crypto_operations"]["failed"] - before
        return shown["crypto_errors_lately"], failed >= len(contacts)

    await eventually(errors, (0, True))
    assert (await agent.show("sales"))["health"]["verdict"] == "healthy"
    kinds = {kind for kind, _ in await agent.story("sales")}
    assert not kinds & {"repair", "repair_over"}, await agent.story("sales")
    assert not (session / "removed-keys").exists()
    assert not any(contact in agent.log.read_text() for contact in contacts)


async def test_all_nodes_that_are_killed_at_once_come_back_without_a_canary(
    make_agent: Callable[..., RunningAgent],
    whatsapp: WhatsApp,
    cache: Path,
    eventually: Eventually,
) -> None:
    """As an upgrade or a machine without memory does: each worker starts its own Node again."""
    accounts = {"sales": ACCOUNT, "shop": "5511900000011", "till": "5511900000021"}
    agent = make_agent()
    await a_scanned_session(agent, whatsapp, cache, eventually)
    for id in ("shop", "till"):
        body = {"id": id, "engine": "baileys", "settings": {"url": whatsapp.socket}}
        await agent.do("POST", "/api/instance", body)
        await eventually(lambda id=id: agent.status(id), "QR_REQUIRED", within=40)
        code = await agent.do("GET", f"/api/instance/{id}/qr")
        await asyncio.to_thread(whatsapp.scan, code["qr"], accounts[id])
        await eventually(lambda id=id: agent.status(id), "CONNECTED", within=40)
    workers = {id: await agent.pid(id) for id in accounts}
    logins = {id: whatsapp.device(account)["logins"] for id, account in accounts.items()}
    for node in [node for worker in workers.values() for node in children([worker])]:
        os.kill(node, signal.SIGKILL)
    for id, account in accounts.items():
        await eventually(
            lambda id=id, account=account: whatsapp.device(account)["logins"] > logins[id],
            within=60,
        )
        await eventually(lambda id=id: agent.status(id), "CONNECTED", within=60)
    assert "incident" not in agent.log.read_text()
    assert {id: await agent.pid(id) for id in accounts} == workers, "no worker was started again"


@pytest.mark.slow
@pytest.mark.timeout(280)
async def test_a_node_that_misbehaves_is_told_apart_and_cured(  # noqa: PLR0917
    make_agent: Callable[..., RunningAgent],
    tmp_path: Path,
    whatsapp: WhatsApp,
    cache: Path,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    control, node = tmp_path / "misbehave", tmp_path / "node"
    node.write_text(f'#!/bin/sh\nMISBEHAVE={control} exec node --import {MISBEHAVE} "$@"\n')
    node.chmod(0o755)
    monkeypatch.setenv("WA_NODE", str(node))
    agent = make_agent()
    agent.first = LOOKS_OFTEN
    settings = agent.config.read_text()
    agent.config.write_text(settings.replace("[worker]", f"[worker]\nmemory_max = {200 << 20}"))
    await a_scanned_session(agent, whatsapp, cache, eventually)
    log = GrowingLog(agent.state / "run" / "sales" / "worker.log")
    for way, words in MISBEHAVIOURS.items():
        logins = whatsapp.device(ACCOUNT)["logins"]
        control.write_text(way)

        await eventually(lambda w=words: w in log.read_text(), within=60)
        await eventually(lambda n=logins: whatsapp.device(ACCOUNT)["logins"] > n, within=60)
        await eventually(lambda: agent.status("sales"), "CONNECTED", within=60)
    logins = whatsapp.device(ACCOUNT)["logins"]
    control.write_text("leak")

    async def ended_for_memory() -> int:
        return int((await agent.show("sales"))["restarts_by_reason"]["oom"])

    await eventually(ended_for_memory, 1, within=60)
    await eventually(lambda: whatsapp.device(ACCOUNT)["logins"] > logins, within=60)
    await eventually(lambda: agent.status("sales"), "CONNECTED", within=60)
    sent = await agent.do(
        "POST", "/api/instance/sales/messages?wait=30", {"to": PEER, "text": "cured"}
    )
    assert sent["outcome"] == "sent"


async def test_missing_packages_are_named_everywhere_and_found_when_they_are_there(
    make_agent: Callable[..., RunningAgent],
    whatsapp: WhatsApp,
    cache: Path,
    eventually: Eventually,
) -> None:
    agent = make_agent()
    await agent.start(PATIENT | SLOWER)
    body = {"id": "sales", "engine": "baileys", "settings": {"url": whatsapp.socket}}
    await agent.do("POST", "/api/instance", body)

    async def reason() -> str:
        return str((await agent.show("sales"))["reason"])

    await eventually(reason, "packages_missing", within=40)
    for words in (("list",), ("show", "sales"), ("why", "sales")):
        status, out = await cli(agent, *words)
        assert (status, "npm packages" in out) == (0, True), out
    _, why = await cli(agent, "why", "sales")
    assert "wa-agent doctor" in why
    assert any("npm packages" in sentence for _, sentence in await agent.story("sales"))
    (agent.state / "cache").symlink_to(cache)
    await eventually(lambda: agent.status("sales"), "QR_REQUIRED", within=90)


async def test_a_session_moves_to_a_plain_baileys_bot_and_back(
    make_agent: Callable[..., RunningAgent],
    whatsapp: WhatsApp,
    cache: Path,
    eventually: Eventually,
    tmp_path: Path,
) -> None:
    """A bot on the library's own useMultiFileAuthState goes on with the pairing, without a scan."""
    agent = make_agent()
    await a_scanned_session(agent, whatsapp, cache, eventually)
    sent = await agent.do(
        "POST", "/api/instance/sales/messages?wait=30", {"to": PEER, "text": "from here"}
    )
    assert sent["outcome"] == "sent"
    await agent.do("POST", "/api/instance/sales/disable")
    await eventually(lambda: agent.pid("sales"), 0)
    await eventually(lambda: whatsapp.device(ACCOUNT)["connected"], False)

    out = tmp_path / "bots"
    status, said = await cli(agent, "export", "sales", out, "--to", "baileys")
    assert status == 0, said
    status, said = await cli(agent, "export", "sales", out, "--to", "baileys")
    assert (status, "--force moves it aside" in said) == (4, True), said
    (out / "sales" / "bot-settings.json").write_text("{}")
    (out / "sales").rename(out / "7")
    bot = await asyncio.to_thread(BaileysServer, whatsapp, out, tmp_path / "bot.log")
    try:
        await eventually(bot.status, "CONNECTED", within=40)
        await asyncio.to_thread(whatsapp.say, PEER, ACCOUNT, "to the bot")
        bot.send(PEER, "from the bot")
        await eventually(
            lambda: any(h["text"] == "from the bot" for h in whatsapp.person(PEER)["heard"])
        )
        await eventually(lambda: whatsapp.person(PEER)["unread"], 0)
        bot.disconnect()
        await eventually(lambda: whatsapp.device(ACCOUNT)["connected"], False)
    finally:
        bot.end()

    await agent.do("DELETE", "/api/instance/sales")
    status, said = await cli(agent, "import", out, "sales", "--from", "baileys")
    assert (status, "a program wrote to it" in said) == (4, True), said
    status, said = await cli(agent, "import", out, "sales", "--from", "baileys", "--stopped")
    assert (status, "sales imported, disabled" in said) == (0, True), said
    session = agent.state / "sessions" / "sales" / "session"
    assert not (session / "bot-settings.json").exists()
    await agent.do("PATCH", "/api/instance/sales", {"settings": {"url": whatsapp.socket}})
    await agent.do("POST", "/api/instance/sales/enable")
    await eventually(lambda: agent.status("sales"), "CONNECTED", within=40)
    sent = await agent.do(
        "POST", "/api/instance/sales/messages?wait=30", {"to": PEER, "text": "back"}
    )
    assert sent["outcome"] == "sent"
    await eventually(
        lambda: any(h["text"] == "back" for h in whatsapp.person(PEER)["heard"]), within=40
    )
    assert not [s for _, s in await agent.story("sales") if "→ QR_REQUIRED" in s][1:]

    for name in out.glob("7/pre-key-*.json"):
        name.unlink()
    status, said = await cli(agent, "import", out, "deaf", "--from", "baileys", "--stopped")
    assert (status, "without one-time pre-keys" in said) == (4, True), said
