"""A program of somebody's own, unmodified, on the real Baileys → its worker and the agent: where it
keeps its session, how its parts are cut, how it ends and what else it has are as users write it. It
is killed, frozen and restarted, its worker and the agent too, while a contact writes.

Afterwards it is connected as the device that was scanned, each message that came is kept once, what
else it had lies where it lay, and when it is deleted nothing of it runs."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import psutil

from tests.daemon.conftest import SETTINGS, RunningAgent
from tests.lacking import lacks
from tests.standin.baileys import run
from tests.standin.baileys.run import WhatsApp, why_not

Step = dict[str, Any]
CASES = 2
PATIENCE = 90.0
BOT = Path(run.HERE) / "bots" / "own.mjs"
CONTACT = "4917012345678"
SHORT = SETTINGS + "\n[recovery]\nfirst_delay = 0.2\nsettle = 1.5\n"
OPEN: tuple[str, ...] = ("stdin", "sends", "bare", "two")
"""What users write and is not drawn: what only pm2 gives (`[[program]] pm2`), without systemd a
daemon that cleared its environment, and a second account, whose scan this harness does not hit
(tests/engines/program/test_program_baileys.py has one). Who repairs one takes its name away."""
_STEPS = ("say", "say", "say", "print", "kill", "end", "freeze", "worker", "agent", "restart")
DECLARED = """
[[program]]
name = "{name}"
command = ["node", {bot}, {shape}]
environment = [{whatsapp}]
messages = true
stop = 1.0
starts = 100
"""


def draw(chance: Random) -> list[Step]:
    stores = [chance.choice(("auth_info_baileys", "my auth", "sessions/shop", "."))]
    shape = {
        "library": chance.choice(("baileys", "baileys-6")),
        "stores": stores,
        "part": chance.choice(("main", "main", "fork", "thread")),
        "at": chance.choice(
            ("stays", "ends", "at_once" if _bears("at_once") else "ends", "ignores")
        ),
        "stdin": _bears("stdin") and chance.random() < 0.2,
        "sends": _bears("sends") and chance.random() < 0.2,
        "child": chance.choice(("", "kept", "bare" if _bears("bare") else "")),
        "data": chance.random() < 0.5,
    }
    if _bears("two") and chance.random() < 0.3:
        stores.append("another")
    steps: list[Step] = [{"do": "shape", "shape": shape}]
    for _ in range(chance.randrange(2, 7)):
        size = 10 ** chance.randrange(1, 7)
        steps.append({"do": chance.choice(_STEPS), "size": size, "wait": chance.random() * 2})
    if _bears("two") and len(stores) > 1 and chance.random() < 0.5:
        steps.append({"do": "logout_other", "wait": 2})
    if _bears("data_at_logout") and shape["data"] and chance.random() < 0.3:
        steps.append({"do": "logout", "wait": 5})
    return steps


def _bears(what: str) -> bool:
    return what not in OPEN


@dataclass(slots=True)
class World:
    agent: RunningAgent
    whatsapp: WhatsApp
    number: Any


@dataclass(slots=True)
class Own:
    """One program of a case."""

    world: World
    id: str
    account: str
    shape: dict[str, Any]
    said: dict[str, str]

    @property
    def folder(self) -> Path:
        return self.world.agent.state / "sessions" / self.id / "session"

    def device(self) -> Any:
        held = json.loads((self.folder / self.shape["stores"][0] / "creds.json").read_bytes())
        return held["me"]["id"], held["noiseKey"]

    def pids(self) -> list[int]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if Path(process.cwd()).is_relative_to(self.folder):
                    found.append(process.pid)
        return found


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    for package in ("baileys", "baileys-6"):
        if reason := why_not(package):
            lacks(reason)
    (folder / "agent.toml").write_text(SHORT)
    agent = RunningAgent(folder / "state", folder / "agent.toml")
    whatsapp = WhatsApp(folder / "whatsapp.log")
    try:
        await agent.start()
        yield World(agent, whatsapp, count())
    finally:
        await agent.close()
        whatsapp.end()


async def play(world: World, case: list[Step]) -> None:
    shapes = [step["shape"] for step in case if step["do"] == "shape"]
    plain = {"library": "baileys", "stores": ["auth_info_baileys"], "part": "main", "at": "stays"}
    number = next(world.number)
    own = Own(world, f"own{number}", f"49151{number:08}", shapes[0] if shapes else plain, {})
    try:
        await _link(own)
        device = own.device()
        for step in case:
            await _do(own, step)
            await asyncio.sleep(step.get("wait", 0))
        await _judge(own, device, logged_out=any(step["do"] == "logout" for step in case))
    finally:
        status, said = await world.agent.ask("DELETE", f"/api/instance/{own.id}")
    assert status in (200, 202, 204), f"it cannot be deleted: {status} {said}"
    await _until(lambda: not own.pids(), "it was deleted, and processes of it run")


async def _link(own: Own) -> None:
    agent, whatsapp = own.world.agent, own.world.whatsapp
    words = {
        "bot": json.dumps(str(BOT)),
        "shape": json.dumps(json.dumps(own.shape)),
        "whatsapp": json.dumps(f"WHATSAPP={whatsapp.socket}"),
    }
    with agent.config.open("a") as file:
        file.write(DECLARED.format(name=own.id, **words))
    await agent.do("POST", "/api/reload")
    body = {"id": own.id, "engine": "program", "settings": {"program": own.id}}
    until = time.monotonic() + PATIENCE
    while (said := await agent.ask("POST", "/api/instance", body))[0] != 201:
        assert time.monotonic() < until, said
        await asyncio.sleep(0.1)
    for at, store in enumerate(own.shape["stores"]):
        code = own.folder / f"code of {store.replace('/', ' ')}"
        await _until(lambda code=code: code.exists() and code.stat().st_size, f"no code of {store}")
        account = own.account if at == 0 else own.account.replace("49151", "49152")
        await asyncio.to_thread(whatsapp.scan, code.read_text(), account)
        await _until(lambda at=account: whatsapp.device(at).get("connected"), f"{store} not linked")
    await _until_connected(own)


async def _do(own: Own, step: Step) -> None:
    whatsapp, agent = own.world.whatsapp, own.world.agent
    match step["do"]:
        case "say":
            text = f"word {len(own.said)}"
            id = await asyncio.to_thread(whatsapp.say, CONTACT, own.account, text)
            own.said[id] = text
        case "print":
            text = f"print {step['size']}"
            id = await asyncio.to_thread(whatsapp.say, CONTACT, own.account, text)
            own.said[id] = text
        case "kill" | "end" | "freeze" as how:
            number = {"kill": signal.SIGKILL, "end": signal.SIGTERM, "freeze": signal.SIGSTOP}[how]
            for pid in own.pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        case "worker":
            pid = (await agent.show(own.id))["unit"]["main_pid"]
            with suppress(ProcessLookupError):
                if pid:
                    os.kill(pid, signal.SIGKILL)
        case "agent":
            await agent.kill()
            await agent.start()
        case "restart":
            await agent.ask("POST", f"/api/instance/{own.id}/restart")
        case "logout" | "logout_other" as which:
            other = own.account.replace("49151", "49152")
            account = own.account if which == "logout" else other
            await asyncio.to_thread(whatsapp.trouble, account, "conflict", type="device_removed")


async def _judge(own: Own, device: Any, *, logged_out: bool) -> None:
    if own.shape.get("data"):
        data = own.folder / "orders.sqlite"
        assert data.exists(), "what else it had is not where it lay"
        assert data.read_text() == "all orders of the shop"
    if logged_out:
        return
    await _until_connected(own)
    assert own.device() == device, "it is another device"
    until = time.monotonic() + PATIENCE
    while True:
        path = f"/api/instance/{own.id}/messages?after=0&limit=500"
        status, got = await own.world.agent.ask("GET", path)
        ids = [each.get("message_id") for each in got["records"]] if status == 200 else []
        lost = [text for id, text in own.said.items() if id not in ids]
        if not lost:
            break
        assert time.monotonic() < until, f"not kept: {lost}"
        await asyncio.sleep(0.2)
    twice = [text for id, text in own.said.items() if ids.count(id) > 1]
    assert not twice, f"kept twice: {twice}"


async def _until(found: Any, words: str) -> None:
    until = time.monotonic() + PATIENCE
    while not await asyncio.to_thread(found):
        assert time.monotonic() < until, words
        await asyncio.sleep(0.1)


async def _until_connected(own: Own) -> None:
    until = time.monotonic() + PATIENCE
    while (shown := await own.world.agent.show(own.id))["connection_status"] != "CONNECTED":
        assert time.monotonic() < until, f"it is not back: {shown['sentence']}"
        await asyncio.sleep(0.1)
