"""A user's own bot → its worker and the agent: what it tells, answers, prints, writes into its
session and starts is as odd as can be.

Afterwards the agent answers, its other session is connected, the bot's session is connected only
where it said so, nothing of its secret is in a log or a metric, the instance can be deleted, and no
process of it is left."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from tests.daemon.conftest import SETTINGS, RunningAgent
from tests.trial.hostile.botting import acts
from tests.trial.hostile.botting.acts import Step

CASES = 4
BOT = Path(__file__).parent / "botting" / "bot.py"
PATIENCE, PLAYS = 40.0, 5.0
SECRET = "token-of-a-hostile-bot"
draw = acts.draw
DECLARED = """
[[program]]
name = "{name}"
command = ["{python}", "{bot}", "{place}"]
environment_file = "{secrets}"
stop = 0.5
starts = 100
"""


@dataclass(slots=True)
class World:
    agent: RunningAgent
    folder: Path
    number: Any


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    (folder / "agent.toml").write_text(SETTINGS)
    (folder / "secrets").write_text(f"BOT_TOKEN={SECRET}\n")
    agent = RunningAgent(folder / "state", folder / "agent.toml")
    made = World(agent, folder, count())
    try:
        await agent.start()
        await agent.create("desk")
        await _until_connected(made, "desk")
        yield made
    finally:
        await agent.close()


async def play(world: World, case: list[Step]) -> None:
    id = f"bot{next(world.number)}"
    place = world.folder / id
    place.mkdir()
    (place / "steps").write_text(json.dumps(case))
    try:
        await _declare(world, id, place)
        until = time.monotonic() + PLAYS  # one that the agent stopped does not get to its end
        while time.monotonic() < until and not (place / "played").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await _judge(world, id, case)
    finally:
        status, said = await world.agent.ask("DELETE", f"/api/instance/{id}")
    assert status in (200, 202, 204), f"it cannot be deleted: {status} {said}"
    await _until(lambda: not _left(place), "it was deleted, and processes of it run")


async def _declare(world: World, id: str, place: Path) -> None:
    with world.agent.config.open("a") as file:
        told = {"python": sys.executable, "bot": BOT, "secrets": world.folder / "secrets"}
        file.write(DECLARED.format(name=id, place=place, **told))
    await world.agent.do("POST", "/api/reload")
    body = {"id": id, "engine": "program", "settings": {"program": id}}
    until = time.monotonic() + PATIENCE
    while True:
        status, said = await world.agent.ask("POST", "/api/instance", body)
        if status == 201:
            return
        assert said["error"] == "unknown_program", said  # the agent reads its file after the answer
        assert time.monotonic() < until, said
        await asyncio.sleep(0.05)


async def _judge(world: World, id: str, case: list[Step]) -> None:
    began = time.monotonic()
    shown = await world.agent.show(id)
    assert time.monotonic() - began < 10, "the agent takes its time"
    told_open = any(step.get("line", {}).get("event") == "open" for step in case)
    assert told_open or shown["connection_status"] != "CONNECTED", "nobody said that it is open"
    await _until_connected(world, "desk")
    status, metrics = await world.agent.ask("GET", "/metrics")
    assert status == 200
    seen = {
        "a metric": str(metrics),
        "the agent's log": world.agent.log.read_text(),
        "its worker's log": _read(world.agent.state / "run" / id / "worker.log"),
        "its history": str(await world.agent.story(id)),
    }
    for where, text in seen.items():
        for what in (SECRET, "Traceback (most recent call last)"):
            assert what not in text, f"{where} has {what!r}"
        assert "\x1b" not in text, f"{where} has control characters"


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _left(place: Path) -> list[int]:
    """Processes with that path among their words."""
    found = psutil.process_iter(["cmdline"])
    return [
        its.pid for its in found if any(str(place) in each for each in its.info["cmdline"] or ())
    ]


async def _until(found: Any, words: str) -> None:
    until = time.monotonic() + PATIENCE
    while not await asyncio.to_thread(found):
        assert time.monotonic() < until, words
        await asyncio.sleep(0.05)


async def _until_connected(world: World, id: str) -> None:
    until = time.monotonic() + PATIENCE
    while (shown := await world.agent.show(id))["connection_status"] != "CONNECTED":
        assert time.monotonic() < until, f"{id} is not back: {shown['sentence']}"
        await asyncio.sleep(0.05)
