"""The steps of a backend's case are done: over there, on the way, and asked by an agent."""

import asyncio
import logging
from collections.abc import Coroutine
from pathlib import Path
from random import Random
from typing import Any

from agent.errors import EngineError
from tests.standin.evolution import StandIn
from tests.trial.hostile.serving.acts import MADE, NAMES, PAIRED, WAITS, Step
from tests.trial.hostile.serving.oracle import Bench, intact, judge_words

SETTLED = 1200.0
"""Seconds until all is as it was, once the faults are over."""


async def play_case(case: list[Step], folder: Path) -> None:
    first = next((step for step in case if step["do"] == "server"), {"version": "1.8.6", "seed": 0})
    standin = await StandIn.open(first["version"])
    bench = Bench(standin, folder)
    logging.getLogger("agent").addHandler(bench.log)
    try:
        for name in NAMES:
            if name != MADE:
                standin.add(name, "open" if name in PAIRED else "connecting")
        bench.there = dict(standin.instances)
        standin.without, standin.front.packs = first.get("without", ""), first.get("packs", False)
        await bench.begin()
        await bench.server.check()
        await bench.do("connect", MADE)
        await play_steps(bench, case, Random(first["seed"]))
        await _come_back(bench)
    finally:
        await bench.end()
        await standin.close()
    judge_words(bench)


async def _come_back(bench: Bench) -> None:
    """All is well over there: each pairing is open, and said to be; so is the server."""
    standin = bench.standin
    for instance in standin.instances.values():
        instance.dead = ""
    standin.silence(False)
    until = asyncio.get_running_loop().time() + SETTLED
    while True:
        said = {name: await _status(bench, name) for name in NAMES}
        server = await bench.server.check()
        if server.up and all(said[each.name] == "CONNECTED" for each in bench.paired()):
            break
        assert asyncio.get_running_loop().time() < until, (said, server)
        await asyncio.sleep(2.0)
    intact(bench)
    listed = {session.name for session in bench.server.sessions}
    assert listed >= {each.name for each in bench.paired()}, f"an odd row hides others: {listed}"


async def _status(bench: Bench, name: str) -> str:
    try:
        claim = (await bench.do("probe", name))["claim"]
        if claim.status == "DISCONNECTED" and "reconnect" not in claim.useless:
            await bench.do("connect", name)
        return str(claim.status)
    except EngineError as error:
        return str(error)


async def play_steps(bench: Bench, case: list[Step], chance: Random) -> None:
    asked = _Asked()
    try:
        for step in case:
            await _do(bench, asked, step, chance)
            intact(bench)
            asked.judge()
        bench.standin.front.status = 400
        await bench.standin.front.set("")
        await asyncio.gather(*asked.tasks)
    finally:
        await asked.end()


class _Asked:
    """Requests that were asked, and are under way."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []

    async def begin(self, act: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(act))
        await asyncio.sleep(0)

    def judge(self) -> None:
        for task in self.tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def end(self) -> None:
        self.judge()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()


async def _do(bench: Bench, asked: _Asked, step: Step, chance: Random) -> None:
    match step["do"]:
        case "fault":
            first, last = step["late"]
            bench.standin.front.chance, bench.standin.front.status = chance, step["status"]
            await bench.standin.front.set(step["kind"], first, step["route"], up_to=last)
        case "happens":
            await _happen(bench, step["what"], step["name"])
        case "ask":
            for name in NAMES:
                for what in step["asked"]:
                    await asked.begin(_ask(bench, name, what))
        case "row":
            odd = bench.standin.add(step["name"], "close")
            if step["field"]:
                setattr(odd.row, step["field"], step["value"])
        case "delete" if step["name"] in bench.standin.instances:
            bench.deleted.add(step["name"])
            bench.standin.remove(step["name"])
        case "agent":
            if step["in"]:
                await asked.begin(_ask(bench, MADE, step["in"]))
                await asyncio.sleep(0.05)
            await asked.end()
            await bench.end()
            await bench.begin()
        case "wait":
            await asyncio.sleep(step["seconds"])


async def _happen(bench: Bench, what: str, name: str) -> None:
    standin = bench.standin
    instance = standin.instances.get(name)
    if what in ("silent", "back"):
        standin.silence(what == "silent")
    elif what == "restart":
        await standin.restart_process(0.2)
    elif instance is None or instance.state is None:
        return
    elif what == "scan" and instance.scan():
        instance.drop(515)
    elif what == "stuck":
        instance.stuck = True
    elif what == "drop" and instance.state == "open":
        instance.drop(408)
    elif what == "dead" and instance.state == "open":
        instance.dead = "silent"


async def _ask(bench: Bench, name: str, what: str) -> None:
    """Whatever it answers, an error must be one that the agent can tell. 2.x is asked at once to
    connect what it says is closed, so no order asks for it here; none renews a pairing."""
    gone = name in bench.deleted
    if what in ("connect", "restart") and not (bench.standin.old or gone):
        return
    if what == "renew" and name not in (WAITS, MADE) and not gone:
        return
    phone = {"name": "pairing_code", "arguments": {"phone": "+55 11 98888-7777"}}
    asks: dict[str, tuple[str, dict[str, Any]]] = {
        "deep": ("probe", {"deep": True}),
        "pairing_code": ("command", phone),
    }
    do, args = asks.get(what, (what, {}))
    try:
        await bench.do(do, name, **args)
    except EngineError as error:
        bench.errors.append(str(error))
