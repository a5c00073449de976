"""The agent that the operator works on, on a small disk of its own, and its sessions of four
engines with their stand-ins, as a case finds them."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.daemon.conftest import NOWHERE, RunningAgent
from tests.daemon.conftest import SETTINGS as SHORT
from tests.defaults import changed
from tests.engines.baileys.conftest import ACCOUNT, make_cache
from tests.lacking import not_lent
from tests.moving.conftest import creds, keys_of, pair_of, write_folder
from tests.standin.baileys.run import WhatsApp
from tests.standin.evolution import KEY, Times
from tests.standin.evolution import StandIn as Evolution
from tests.standin.whaticket.server import PASSWORD, USER, StandIn
from tests.standin.whaticket.session import DAMAGED
from tests.trial.hostile.operating.commands import BACKENDS, BOTS, DEAF, PEERS
from tests.trial.hostile.operating.processes import type_command
from tests.trial.hostile.operating.world import World
from tests.waiting import GrowingLog

SANDBOXES = ("a", "b")
BYSTANDERS = {"calm": "sandbox", "still": "evolution"}
"""Sessions that no command names: nothing happens to them."""
SETTINGS = (
    SHORT.replace("interval = 1\n", "interval = 1\ndeep = 2\nstuck = 3\n", 1)
    .replace("timeout = 0.5\n", "timeout = 1\n", 1)
    .replace("[start]\n", "[start]\ndisk_free = 0\n", 1)
    + "[recovery]\nfirst_delay = 0.2\nsettle = 1.5\n"
    + "[sessions]\nsnapshots = 3\n"
)


async def make(world: World, id: str) -> None:
    """As it is at the beginning of a case."""
    world.ready.add(id)
    if id in BACKENDS or id == "still":
        await _adopt(world, id)
    elif id in BOTS:
        await _bots(world)
    elif id == "wa":
        await _linked(world)
    elif id != "c":
        await world.agent.create(id)
        await world.connected(id)


async def _adopt(world: World, id: str) -> None:
    backend, remote = BACKENDS.get(id, ("eu", "other"))
    if backend == "eu":
        if id == "evo":
            with suppress(KeyError):
                world.evolution.remove(remote)
        world.evolution.add(remote, "open")
    else:
        if remote in world.desk.sessions:
            await world.desk.sessions[remote].log_out()
        session = world.desk.add(remote)
        await session.pair("5511000000007", PEERS, {})
        session.start()
    await world.agent.ask("DELETE", f"/api/instance/{id}")
    path = f"/api/backends/{backend}/adopt"

    async def adopted() -> Any:
        status, said = await world.ask("POST", path, {}, {"remote": remote, "id": id})
        return status == 201 or said

    await world.until(f"{id} is not adopted", adopted)
    await world.connected(id)
    if id == "desk":
        await _renew_keys(world)


async def _renew_keys(world: World) -> None:
    """So that there are removed files to put back, and a whole pairing that was put back."""
    session = world.desk.sessions["7"]
    session.memory[f"session-{PEERS[0]}.0"] = DAMAGED
    for _ in range(6):
        session.receive(PEERS[0])

    async def renewed() -> bool:
        return bool(await world.names_of("removed", "desk"))

    await world.until("no keys were renewed", renewed)
    await world.connected("desk")
    confirmed = {"confirm": True}
    await world.agent.do("POST", "/api/instance/desk/cleanup", confirmed)
    whole = max(await world.names_of("removed", "desk"))
    await world.agent.do("POST", f"/api/instance/desk/removed/{whole}/restore")
    await world.connected("desk")


async def _bots(world: World) -> None:
    """The device of `k`'s snapshot runs as `k2` since; `k` is another device."""
    for id in BOTS:
        await world.agent.ask("DELETE", f"/api/instance/{id}")
    for source, id in (("one", "k"), ("two", "k"), ("one", "k2")):
        place = world.folder / "bots" / source
        words = ["import", str(place), id, "--stopped", "--set", f"url={DEAF}"]
        status, said = await type_command(
            world, [*words, *(["--replace"] if source == "two" else [])]
        )
        assert status == 0, said
        if (source, id) == ("one", "k"):
            await world.agent.do("POST", "/api/instance/k/snapshots")
    for id in BOTS:
        await world.agent.do("POST", f"/api/instance/{id}/enable")
    world.ready |= {*BOTS}


async def _linked(world: World) -> None:
    if world.whatsapp is None:
        world.whatsapp = WhatsApp(world.folder / "whatsapp.log")
    body = {"id": "wa", "engine": "baileys", "settings": {"url": world.whatsapp.socket}}
    await world.agent.ask("DELETE", "/api/instance/wa")
    await world.agent.do("POST", "/api/instance", body)
    code = ""

    async def shows() -> Any:
        nonlocal code
        _, said = await world.ask("GET", "/api/instance/wa/qr", {}, None)
        code = json.loads(said).get("qr", "")
        return bool(code) or said

    await world.until("no code", shows)
    await asyncio.to_thread(world.whatsapp.scan, code, ACCOUNT)
    await world.connected("wa")


def _mounted(disk: Path) -> Path:
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=320m,mode=0700", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        not_lent(f"this machine allows no mount: {done.stderr.strip()}")
    return disk


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[World]:
    disk = _mounted(folder / "disk")
    (folder / "archives").mkdir()
    write_folder(folder / "bots" / "one", keys_of())
    write_folder(folder / "bots" / "two", keys_of(creds(noiseKey=pair_of(9))))
    agent = RunningAgent(disk / "state", folder / "agent.toml")
    agent.first = NOWHERE + changed("agent.core.recovery.pairing.RecoveryPolicy", settle_keys=2.0)
    agent.log = GrowingLog(folder / "agent.log")
    evolution = await Evolution.open("1.8.6", times=Times.fast())
    world: World | None = None
    try:
        async with StandIn.opened(folder / "desk") as desk:
            agent.config.write_text(SETTINGS + _tables(evolution, desk))
            world = World(folder, agent, evolution, desk)
            agent.state.mkdir(mode=0o700)
            (agent.state / "cache").symlink_to(make_cache(folder / "cache"))
            await world.start()
            for id in (*SANDBOXES, "calm"):
                await make(world, id)
            yield world
    finally:
        await agent.close()
        await evolution.close()
        if world is not None and world.client is not None:
            await world.client.close()
        if world is not None and world.whatsapp is not None:
            world.whatsapp.end()
        await asyncio.to_thread(subprocess.run, ["umount", "--lazy", str(disk)], check=True)


def _tables(evolution: Evolution, desk: StandIn) -> str:
    return f"""
[[backend]]
name = "eu"
engine = "evolution"
url = "{evolution.url}"
key = "{KEY}"

[[backend]]
name = "srv"
engine = "whaticket"
url = "{desk.url}"
user = "{USER}"
password = "{PASSWORD}"
timeout = 2.0
logs = ["file:{desk.log.path}"]
auth_folder = "{desk.keys.root}/{{id}}"
"""  # type: ignore[attr-defined]
