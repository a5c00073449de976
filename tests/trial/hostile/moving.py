"""An operator → an agent, while numbered messages go through a session in both directions: it is
stopped, restarted, copied, restored, replaced by an archive of itself and disabled, commands are
broken off, and the agent and its worker are killed in between.

What WhatsApp was told to be taken is read by cursor, once. What was answered 202 is at WhatsApp,
once, and its key stays its own. Nobody pairs again, and no two connections are open at once."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from tests.daemon.conftest import PATIENT, SETTINGS, RunningAgent
from tests.trial.hostile.flowing.whatsapp import WhatsApp
from tests.trial.hostile.operating.processes import type_command

CASES = 1
ID, PATH = "shop", "/api/instance/shop"
BOT = Path(__file__).parent / "flowing" / "bot.py"
PATIENCE, EVERY, STEPS = 60.0, 0.1, 5
COMMANDS = ("stop", "start", "restart", "disable", "enable", "snapshot", "restore", "replace")
KILLS = ("agent", "worker", "agent in a command", "command")
DECLARED = """
[[program]]
name = "bot"
command = ["{python}", "{bot}", "{port}"]
messages = true
stop = 1.0
starts = 100
"""


Step = dict[str, Any]


@dataclass(slots=True)
class World:
    agent: RunningAgent
    whatsapp: WhatsApp
    archive: Path
    number: int = 0
    posted: dict[int, str] = field(default_factory=dict)
    """The outbox's ids of what was answered 202."""
    cursor: int = 0
    read: list[int] = field(default_factory=list)


def draw(chance: Random) -> list[Step]:
    steps = []
    for _ in range(STEPS):
        step: Step = {"do": chance.choice(COMMANDS), "after": round(chance.uniform(0, 0.5), 2)}
        if chance.random() < 0.4:
            step |= {"kill": chance.choice(KILLS), "at": round(chance.uniform(0.1, 1.5), 2)}
        steps.append(step)
    return steps


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    whatsapp = WhatsApp()
    await whatsapp.start()
    told = {"python": sys.executable, "bot": BOT, "port": whatsapp.port}
    (folder / "agent.toml").write_text(SETTINGS + DECLARED.format(**told))
    agent = RunningAgent(folder / "state", folder / "agent.toml")
    made = World(agent, whatsapp, folder / "shop.tar.gz")
    try:
        await agent.start(PATIENT)
        body = {"id": ID, "engine": "program", "settings": {"program": "bot"}}
        await agent.do("POST", "/api/instance", body)
        await _settle(made)
        yield made
    finally:
        await agent.close()
        await whatsapp.close()


async def play(world: World, case: list[Step]) -> None:
    flowing = [asyncio.create_task(_flow(world)), asyncio.create_task(_read_on(world))]
    try:
        for step in case:
            await asyncio.sleep(step["after"])
            await _do(world, step)
        await _settle(world)
    finally:
        for task in flowing:
            task.cancel()
        ended = await asyncio.gather(*flowing, return_exceptions=True)
    broke = [one for one in ended if not isinstance(one, asyncio.CancelledError)]
    assert not broke, f"the harness broke: {broke}"
    await _judge(world)


async def _flow(world: World) -> None:
    """A message comes and one goes; one that was not answered is posted again."""
    while True:
        world.number += 1
        number = world.number
        world.whatsapp.say(number)
        while True:
            await asyncio.sleep(EVERY)
            if await _post(world, number):
                break


async def _post(world: World, number: int) -> bool:
    body = {"to": f"4917100000{number % 5}", "text": f"out {number}"}
    key = {"Idempotency-Key": f"key {number}"}
    with suppress(aiohttp.ClientError, OSError):
        status, answer = await world.agent.ask("POST", f"{PATH}/messages", body, key)
        assert status != 500, answer
        if status in (200, 202):
            known = world.posted.setdefault(number, answer["id"])
            assert known == answer["id"], f"key {number} is {known} and {answer['id']}"
            return True
    return False


async def _read_on(world: World) -> None:
    while True:
        await _read(world)
        await asyncio.sleep(EVERY)


async def _read(world: World) -> bool:
    """False: there is no more, or no answer."""
    with suppress(aiohttp.ClientError, OSError):
        path = f"{PATH}/messages?after={world.cursor}&limit=100"
        status, page = await world.agent.ask("GET", path)
        assert status != 500, page
        if status != 200:
            return False
        for record in page["records"]:
            assert record["kind"] != "message_gap", f"a gap: {record}"
            if record["kind"] == "message" and not record["from_me"]:
                world.read.append(int(record["text"].split()[1]))
        world.cursor = page["next"]
        return bool(page["records"])
    return False


async def _do(world: World, step: Step) -> None:
    kill, at = step.get("kill"), step.get("at", 0.0)
    for words in await _words(world, step["do"]):
        told: Any = world
        typed = asyncio.create_task(type_command(told, words, at if kill == "command" else 0.0))
        if kill == "agent in a command":
            await asyncio.sleep(at)
            await _kill_agent(world)
        _, said = await typed
        assert "Traceback" not in said, f"{words}: {said[-500:]}"
    if kill == "agent":
        await _kill_agent(world)
    elif kill == "worker":
        for pid in world.agent.worker_pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def _words(world: World, name: str) -> list[list[str]]:
    """Of the commands of a step."""
    if name == "replace":
        archive = str(world.archive)
        return [["export", ID, archive, "--force"], ["import", archive, ID, "--replace"]]
    if name == "restore":
        found = (await world.agent.do("GET", f"{PATH}/snapshots"))["snapshots"]
        return [["restore", ID, found[0]["name"], "--force"]] if found else []
    return [[name, ID]]


async def _kill_agent(world: World) -> None:
    await world.agent.kill()
    await world.agent.start(PATIENT)


async def _settle(world: World) -> None:
    for word in ("enable", "start"):
        await world.agent.do("POST", f"{PATH}/{word}")
    await _until(lambda: world.agent.status(ID), "CONNECTED", "it is not back")


async def _judge(world: World) -> None:
    whatsapp = world.whatsapp

    async def waits() -> list[Any]:
        while await _read(world):
            pass
        page = await world.agent.do("GET", f"{PATH}/outbox?state=accepted")
        return [*whatsapp.waiting, *page["messages"]]

    await _until(waits, [], "messages wait")
    assert sorted(world.read) == sorted(whatsapp.taken), (
        f"lost {whatsapp.taken - {*world.read}}, doubled"
        f" {[number for number in {*world.read} if world.read.count(number) > 1]}"
    )
    lost = {
        number: id for number, id in world.posted.items() if f"out {number}" not in whatsapp.got
    }
    assert not lost, f"answered 202, and never sent: {lost}"
    doubled = {text: ids for text, ids in whatsapp.got.items() if len(ids) > 1}
    assert not doubled, f"sent under two ids: {doubled}"
    assert whatsapp.pairings == 1, f"paired {whatsapp.pairings} times"
    assert whatsapp.rivals == 0, "two connections at once"
    log = world.agent.log.read_text()
    assert "Traceback" not in log and "491710000" not in log


async def _until(found: Any, wanted: Any, words: str) -> None:
    until = time.monotonic() + PATIENCE
    while (shown := await found()) != wanted:
        assert time.monotonic() < until, f"{words}: {str(shown)[:300]}"
        await asyncio.sleep(EVERY)
