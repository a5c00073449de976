"""Another program on the machine → an agent: a cleaner of old files deletes or replaces its
sockets, its lock and its run files; its processes get signals, are paused and run out of
descriptors; its folders are renamed and come back; a second agent is started over it.

Afterwards each session is connected as the device that it was, one worker each, nothing of it is
in the trash, no debugger listens, and the agent runs, or starts again."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests.daemon.conftest import SETTINGS, RunningAgent
from tests.engines.baileys.conftest import ACCOUNT, make_cache
from tests.lacking import lacks
from tests.standin.baileys.run import WhatsApp, why_not
from tests.trial.hostile.neighbouring import acts
from tests.trial.hostile.neighbouring.acts import SESSIONS, Step

CASES = 2
PATIENCE = 90.0
SHORT = SETTINGS + "\n[recovery]\nfirst_delay = 0.2\nsettle = 1.5\n"
draw = acts.draw


@dataclass(slots=True)
class World:
    agent: RunningAgent
    devices: dict[str, Any] = field(default_factory=dict)

    def device(self, id: str) -> Any:
        session = self.agent.state / "sessions" / id / "session"
        if id == "wa":
            held = json.loads((session / "creds.json").read_bytes())
            return held["me"]["id"], held["noiseKey"]
        return json.loads((session / "sandbox.json").read_bytes())["device"]


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    if reason := why_not("baileys"):
        lacks(reason)
    (folder / "agent.toml").write_text(SHORT)
    agent = RunningAgent(folder / "state", folder / "agent.toml")
    agent.state.mkdir(mode=0o700)
    (agent.state / "cache").symlink_to(make_cache(folder / "cache"))
    whatsapp = WhatsApp(folder / "whatsapp.log")
    try:
        await agent.start()
        made = World(agent)
        for id in ("desk", "shop"):
            await agent.create(id)
        await _link(agent, whatsapp)
        for id in SESSIONS:
            await _until_connected(made, id)
            made.devices[id] = made.device(id)
        yield made
    finally:
        await agent.close()
        whatsapp.end()


async def _link(agent: RunningAgent, whatsapp: WhatsApp) -> None:
    body = {"id": "wa", "engine": "baileys", "settings": {"url": whatsapp.socket}}
    await agent.do("POST", "/api/instance", body)
    code = ""
    async with asyncio.timeout(PATIENCE):
        while not code:
            _, said = await agent.ask("GET", "/api/instance/wa/qr")
            code = said.get("qr", "")
            await asyncio.sleep(0.05)
    await asyncio.to_thread(whatsapp.scan, code, ACCOUNT)


async def play(world: World, case: list[Step]) -> None:
    for step in case:
        with suppress(aiohttp.ClientError, OSError):
            await acts.do(world.agent, step)
        await _revive(world.agent)
    acts.clear(world.agent.state)
    await _revive(world.agent)
    for id in SESSIONS:
        shown = await _until_connected(world, id)
        assert world.device(id) == world.devices[id], f"{id} is another device"
        for pid in acts.nodes_of(shown["unit"]["main_pid"]):
            listening = [
                each
                for each in psutil.Process(pid).net_connections()
                if each.status == psutil.CONN_LISTEN
            ]
            assert not listening, f"the Node of {id} listens: {listening}"
    trash = [path.name for path in (world.agent.state / "sessions" / ".trash").glob("*")]
    assert not trash, f"put into the trash: {trash}"


async def _revive(agent: RunningAgent) -> None:
    """A signal may end the agent; systemd starts it again."""
    assert agent.process is not None
    with suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await agent.process.wait()
    if agent.process.returncode is not None:
        acts.clear(agent.state)
        await agent.start()


async def _until_connected(world: World, id: str) -> dict[str, Any]:
    until, said = time.monotonic() + PATIENCE, "the agent does not answer"
    while True:
        with suppress(aiohttp.ClientError, OSError):
            shown = await world.agent.show(id)
            said = f"{shown['connection_status']} {shown['health']['reason']}: {shown['sentence']}"
            if shown["connection_status"] == "CONNECTED":
                return shown
        assert time.monotonic() < until, f"{id} is not back: {said}"
        await asyncio.sleep(0.05)
