"""Bots of others from npm, byte for byte as they came, under a whole agent."""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Eventually
from tests.daemon.conftest import PATIENT, RunningAgent
from tests.engines.baileys.conftest import ACCOUNT, whatsapp
from tests.lacking import lacks
from tests.ports import free_port
from tests.standin.baileys.run import HERE, WhatsApp

__all__ = ["whatsapp"]

BOTS, TYPESCRIPT = HERE.parent / "bots", HERE.parent / "typescript"
APPS = BOTS / "node_modules" / "create-builderbot" / "dist" / "starters" / "apps"
PEER = "5511900000002"
PROGRAM = """
[[program]]
name = "shopbot"
command = ["{command}"]
environment = ["WHATSAPP={url}", "PORT={port}", "NODE_OPTIONS=--require {standin}"]
"""
SLOWER = {"WA_AGENT_HEALTH__TIMEOUT": "5", "WA_AGENT_HEALTH__INTERVAL": "5"}


def copied(app: str, folder: Path) -> Path:
    """As its README says: copied to a folder, with its packages beside it."""
    shutil.copytree(APPS / app, folder / app)
    (folder / app / "node_modules").symlink_to(BOTS / "node_modules")
    return folder / app / "src"


JAVASCRIPT = "base-js-baileys-memory/app.js"
"""On Baileys 7, which it imports by its name."""
IN_TYPESCRIPT = "base-ts-sherpa-memory/app.ts"
"""Run by tsx, on a fork of Baileys 6 under another name, in a file of 13 MB that rollup made."""


@pytest.mark.parametrize("bot", [JAVASCRIPT, IN_TYPESCRIPT])
async def test_a_bot_from_npm_is_paired_answers_and_comes_back_from_a_kill(
    make_agent: Callable[..., RunningAgent],
    whatsapp: WhatsApp,
    eventually: Eventually,
    tmp_path: Path,
    bot: str,
) -> None:
    for folder in (BOTS, TYPESCRIPT):
        if not (folder / "node_modules" / ".installed").exists():
            lacks(f"npm's packages are not here (tests/standin/{folder.name}/install)")
    app, _, file = bot.partition("/")
    command = ["node", str(copied(app, tmp_path) / file)]
    if file.endswith(".ts"):
        command.insert(1, str(TYPESCRIPT / "node_modules" / "tsx" / "dist" / "cli.mjs"))
    standin = BOTS / "to_stand_in.cjs"
    given = {"url": whatsapp.socket, "port": free_port(), "standin": standin}
    agent = make_agent(PROGRAM.format(command='", "'.join(command), **given))
    await agent.start(PATIENT | SLOWER)
    settings = {"program": "shopbot", "memory_limit": 2 << 30}  # tsx reads all of that file
    body = {"id": "shop", "engine": "program", "settings": settings}
    await agent.do("POST", "/api/instance", body)
    await eventually(lambda: agent.status("shop"), "QR_REQUIRED", within=120)
    code = await agent.do("GET", "/api/instance/shop/qr")
    await asyncio.to_thread(whatsapp.scan, code["qr"], ACCOUNT)
    await eventually(lambda: agent.status("shop"), "CONNECTED", within=90)
    shown = await agent.show("shop")
    assert (shown["account"], shown["paired"]) == (ACCOUNT, True)

    await asyncio.to_thread(whatsapp.say, PEER, ACCOUNT, "hello")
    await eventually(lambda: "*Chatbot*" in str(whatsapp.people()), within=60)
    logins = len(whatsapp.logins())
    os.kill(await agent.pid("shop"), signal.SIGKILL)
    await eventually(lambda: len(whatsapp.logins()) > logins, within=120)
    await eventually(lambda: agent.status("shop"), "CONNECTED", within=90)
    assert len(whatsapp.devices()) == 1
