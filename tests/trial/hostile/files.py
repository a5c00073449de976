"""The disk → a session: its file, its identity file or its newest snapshot is empty, cut, zeroed,
changed by a bit, longer, foreign, another session's, gone, a link, a pipe, a folder; its folder is
moved behind a link, swapped with another's, or has a file of a senseless size.

A running agent has two paired sessions, whose workers are killed over the damaged file: each comes
back as the same device, or says the file's name until its own content is back. The rules of the
engines that log in at WhatsApp are asked about damaged folders: what they let log in is the session
that was paired, and what they refuse is named."""

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from agent.engines.catalog import file_rules
from agent.errors import EngineError
from agent.vault.tree import inspect
from tests.daemon.conftest import SETTINGS, RunningAgent
from tests.moving.conftest import creds, keys_of, pair_of, write_folder
from tests.trial.hostile.damaging.folders import draw_folder, play_folder

CASES = 5
PATIENCE = 60.0
SESSIONS = ("desk", "shop")
FILES = ("session/sandbox.json", "session/sandbox.json", "instance.json", "snapshot")
DAMAGES = (
    *("empty", "half", "zeros", "bit", "bit", "longer", "foreign", "another's"),
    *("gone", "link", "pipe", "folder"),
)
STORE = "profile/Default/IndexedDB/https_web.whatsapp.com_0.indexeddb.leveldb"
AT_REST = {
    "baileys": ("creds.json", "creds.json", "pre-key-1.json", "session-5511900000007.0.json"),
    "web": (f"{STORE}/CURRENT", f"{STORE}/MANIFEST-000001", f"{STORE}/000003.ldb", "web.json"),
}
SHORT = SETTINGS + "\n[recovery]\nfirst_delay = 0.2\nsettle = 1.5\n"
ACCOUNT = "5511900000001"
Step = dict[str, Any]


@dataclass(slots=True)
class World:
    folder: Path
    agent: RunningAgent
    devices: dict[str, str] = field(default_factory=dict)

    def path(self, id: str, file: str) -> Path:
        if file == "snapshot":
            shots = self.agent.state / "sessions" / ".snapshots" / id
            return max(shots.glob("*/files/sandbox.json"))
        return self.agent.state / "sessions" / id / file

    def device(self, id: str) -> str:
        return str(json.loads(self.path(id, FILES[0]).read_bytes())["device"])


def draw(chance: Random) -> list[Step]:
    live = [_damage(chance, "live", chance.choice(FILES)) for _ in range(chance.randint(1, 2))]
    rest = []
    for engine, files in AT_REST.items():
        rest += [_damage(chance, engine, chance.choice(files)) for _ in range(8)]
    if chance.random() < 0.5:
        live.append(draw_folder(chance, SESSIONS))
    return live + rest


def _damage(chance: Random, where: str, file: str) -> Step:
    how, whose = chance.choice(DAMAGES), chance.choice(SESSIONS)
    if where == "live" and how == "another's" and file == FILES[0]:
        how = "bit"  # the sandbox file names no account: it would be the other session
    return {"where": where, "file": file, "how": how, "at": chance.random(), "session": whose}


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    (folder / "agent.toml").write_text(SHORT)
    agent = RunningAgent(folder / "state", folder / "agent.toml")
    await agent.start()
    made = World(folder, agent)
    try:
        for id in SESSIONS:
            await agent.create(id)
            await _until(made, id, lambda shown: shown["connection_status"] == "CONNECTED")
            await agent.do("POST", f"/api/instance/{id}/snapshots")
            made.devices[id] = made.device(id)
        yield made
    finally:
        await agent.close()


async def play(world: World, case: list[Step]) -> None:
    for number, step in enumerate(case):
        if step["where"] == "live":
            await _play_live(world, step)
        elif step["where"] == "folder":
            other = next(each for each in SESSIONS if each != step["session"])
            await play_folder(world.agent, partial(_until, world), step, other)
            for id in SESSIONS:
                assert world.device(id) == world.devices[id], "another device: its pairing was lost"
        else:
            _play_at_rest(world.folder / "rest" / str(number), step)


async def _play_live(world: World, step: Step) -> None:
    agent, id = world.agent, step["session"]
    path, other = (
        world.path(each, step["file"]) for each in (id, next(s for s in SESSIONS if s != id))
    )
    own, before = path.read_bytes(), await agent.show(id)
    pid, last = before["unit"]["main_pid"], before["events"][0]["cursor"]
    _do(path, other, step)
    os.kill(pid, signal.SIGKILL)

    def is_back(shown: dict[str, Any]) -> bool:
        another = shown["unit"]["main_pid"] not in (0, pid)
        return another and shown["connection_status"] == "CONNECTED"

    def is_back_or_names_it(shown: dict[str, Any]) -> bool:
        said = [event["sentence"] for event in shown["events"] if event["cursor"] > last]
        return is_back(shown) or any(path.name in each for each in [shown["sentence"], *said])

    shown = await _until(world, id, is_back_or_names_it)
    if not is_back(shown):
        _remove(path)
        path.write_bytes(own)
        await _until(world, id, is_back)
    assert world.device(id) == world.devices[id], "it is another device: its pairing was lost"
    if step["file"] == "snapshot":
        await agent.do("POST", f"/api/instance/{id}/snapshots")


async def _until(world: World, id: str, wanted: Any) -> dict[str, Any]:
    until = time.monotonic() + PATIENCE
    while not wanted(shown := await world.agent.show(id)):
        said = f"{shown['connection_status']} {shown['health']['reason']}: {shown['sentence']}"
        assert time.monotonic() < until, f"{id} is not back, and does not name the file: {said}"
        await asyncio.sleep(0.05)
    return shown


def _play_at_rest(folder: Path, step: Step) -> None:
    """As the vault and a worker look at a session's folder before each start."""
    engine, rules = step["where"], file_rules(step["where"])
    shutil.rmtree(folder, ignore_errors=True)
    for id, account, seed in (("shop", ACCOUNT, 1), ("desk", "5511900000009", 9)):
        _lay_out(folder / id / "session", engine, account, seed)
    session, other = folder / "shop" / "session", folder / "desk" / "session"
    _do(session / step["file"], other / step["file"], step)
    named = (session / step["file"]).name.partition("-0")[0]  # which MANIFEST, only CURRENT knows
    report = inspect(folder / "shop", engine)
    if report.problem:
        assert named in report.problem, f"the report does not name {named}: {report.problem}"
    if step["how"] == "pipe":
        assert report.problem, "no worker starts over it: to open it would wait for ever"
        return
    if lost := rules.lost_store(session):
        assert str(session) in lost, lost
        return
    try:
        rules.check_login(session, ACCOUNT)
    except EngineError as error:
        assert named in str(error), f"the refusal does not name {named}: {error}"
        return
    if engine == "baileys" and report.files == "whole":
        held = json.loads((session / "creds.json").read_bytes())
        assert (held["me"]["id"].partition(":")[0], held["noiseKey"]["private"]) == (
            ACCOUNT,
            pair_of(1)["private"],
        ), "another device would log in"


def _lay_out(session: Path, engine: str, account: str, seed: int) -> None:
    if engine == "baileys":
        told = creds(me={"id": f"{account}:3@s.whatsapp.net"}, noiseKey=pair_of(seed))
        write_folder(session, {**keys_of(told), "session-5511900000007.0": b'{"a": 1}'})
        return
    (session / STORE).mkdir(parents=True)
    (session / STORE / "CURRENT").write_text("MANIFEST-000001\n")
    for name in ("MANIFEST-000001", "000003.ldb"):
        (session / STORE / name).write_bytes(account.encode() * 9)
    note = {"version": 1, "paired": True, "account": account, "page": ""}
    (session / "web.json").write_text(json.dumps(note))


def _do(path: Path, other: Path, step: Step) -> None:
    raw, at = path.read_bytes(), step["at"]
    _remove(path)
    match step["how"]:
        case "empty":
            path.write_bytes(b"")
        case "half":
            path.write_bytes(raw[: int(len(raw) * at)])
        case "zeros":
            path.write_bytes(bytes(len(raw)))
        case "bit":
            changed = bytearray(raw)
            changed[int(len(raw) * at)] ^= 1 << int(at * 1e6) % 8
            path.write_bytes(changed)
        case "longer":
            path.write_bytes(raw + b"}" * int(1 + at * 100_000))
        case "foreign":
            path.write_bytes(b'{"version": 1, "name": "of another program"}')
        case "another's":
            shutil.copyfile(other, path)
        case "link":
            path.symlink_to(other)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
