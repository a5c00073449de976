"""A session goes from one engine to another and back; its phone scans once."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Eventually
from tests.daemon.conftest import PATIENT, RunningAgent, make_agent
from tests.daemon.test_vault import cli
from tests.engines.baileys.conftest import ACCOUNT
from tests.standin.baileys.run import HERE, WhatsApp

__all__ = ["make_agent"]

PROGRAM = """
[[program]]
name = "shopbot"
command = ["{node}", "{bot}"]
environment = ["WHATSAPP={url}"]

[[program]]
name = "elsewhere"
command = ["{node}", "{bot}"]
folder = "/srv/shopbot"
"""
SLOWER = {"WA_AGENT_HEALTH__TIMEOUT": "5", "WA_AGENT_HEALTH__INTERVAL": "5"}


async def test_a_bots_session_goes_to_baileys_and_back_without_a_scan(
    make_agent: Callable[..., RunningAgent],
    whatsapp: WhatsApp,
    cache: Path,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bot = HERE / "bots" / "plain.mjs"
    agent = make_agent(PROGRAM.format(node=shutil.which("node"), bot=bot, url=whatsapp.socket))
    agent.state.mkdir(mode=0o700)
    (agent.state / "cache").symlink_to(cache)
    await agent.start(PATIENT | SLOWER)
    body = {"id": "shop", "engine": "program", "settings": {"program": "shopbot"}}
    await agent.do("POST", "/api/instance", body)
    await eventually(lambda: agent.status("shop"), "QR_REQUIRED", within=60)
    status, said = await cli(agent, "change-engine", "shop", "--to", "baileys")
    assert (status, "not paired" in said) == (4, True), said
    code = await agent.do("GET", "/api/instance/shop/qr")
    await asyncio.to_thread(whatsapp.scan, code["qr"], ACCOUNT)
    await eventually(lambda: agent.status("shop"), "CONNECTED", within=60)
    codes = await agent.codes("shop")

    words = ("change-engine", "shop", "--to", "baileys", "--wait", "90")
    # One that fails half-way leaves the session as it was.
    status, said = await cli(agent, *words, "--session", str(agent.state / "nowhere"))
    assert (status, "no such folder" in said) == (2, True), said
    await eventually(lambda: agent.status("shop"), "CONNECTED", within=60)
    assert (await agent.show("shop"))["engine"] == "program"
    status, said = await cli(agent, *words, "--set", f"url={whatsapp.socket}")
    assert status == 0, said
    shown = await agent.show("shop")
    assert (shown["engine"], shown["account"]) == ("baileys", ACCOUNT)

    monkeypatch.setenv("WA_AGENT_CONFIG", str(agent.config))
    back = ("change-engine", "shop", "--to", "program")
    refused = {"": "--program", "elsewhere": "/srv/shopbot", "nobody": "no [[program]]"}
    for name, why in refused.items():
        status, said = await cli(agent, *back, *(("--program", name) if name else ()))
        assert (status in (2, 4), why in said) == (True, True), said
    assert await agent.status("shop") == "CONNECTED", "a refusal stops nothing"
    status, said = await cli(agent, *back, "--program", "shopbot", "--wait", "90")
    assert status == 0, said
    shown = await agent.show("shop")
    assert (shown["engine"], shown["settings"]) == ("program", {"program": "shopbot"})
    assert await agent.codes("shop") == codes
    assert (len(whatsapp.devices()), whatsapp.overlaps()) == (1, [])
    trash = [entry["name"] for entry in (await agent.do("GET", "/api/trash"))["trash"]]
    assert len(trash) == 2, "nothing is deleted"
