"""What the steps of a backend's case do: over there, on the way, and asked by an agent."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import Any

from agent.errors import EngineError
from tests.trial.hostile.serving.acts import MADE, NAMES, WAITS, Step
from tests.trial.hostile.serving.oracle import Bench, intact


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
    """What was asked of the worker, and is under way."""

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
            await _meddle(bench, step, chance)
        case "happens":
            await _happen(bench, step["what"], step["name"])
        case "ask":
            for name in NAMES:
                for what in step["asked"]:
                    await asked.begin(_ask(bench, name, what))
        case "hook":
            for _ in range(step["times"]):
                await asked.begin(_hear(bench, step["raw"]))
        case "row":
            odd = bench.standin.add(step["name"], "close")
            if step["field"]:
                setattr(odd.row, step["field"], step["value"])
        case "delete" if step["name"] in bench.standin.instances:
            bench.deleted.add(step["name"])
            bench.standin.remove(step["name"])
        case "worker":
            if step["in"]:
                await asked.begin(_ask(bench, MADE, step["in"]))
                await asyncio.sleep(0.05)
            await asked.end()
            await bench.backend.close()
            bench.begin()
        case "wait":
            await asyncio.sleep(step["seconds"])


async def _meddle(bench: Bench, step: Step, chance: Random) -> None:
    first, last = step["late"]
    front = bench.standin.front
    front.chance, front.status = chance, step["status"]
    await front.set(step["kind"], first, step["route"], up_to=last)


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
    """Whatever it answers: an error must be one that the worker can tell. 2.x is asked at once to
    connect what it says is closed, so nobody orders it here; a pairing is renewed by nobody."""
    gone = name in bench.deleted
    if what in ("connect", "restart") and not (bench.standin.old or gone):
        return
    if what == "renew" and name not in (WAITS, MADE) and not gone:
        return
    session = bench.hold(name)
    phone = {"phone": "+55 11 98888-7777"}
    asks: dict[str, Callable[[], Awaitable[Any]]] = {
        "probe": session.probe,
        "deep": lambda: session.probe(deep=True),
        "connect": session.connect,
        "restart": session.restart,
        "qr": session.qr,
        "renew": lambda: session.renew(confirmed=False),
        "pairing_code": lambda: session.command("pairing_code", phone),
    }
    try:
        await asks[what]()
    except EngineError as error:
        bench.errors.append(str(error))


async def _hear(bench: Bench, raw: Any) -> None:
    with contextlib.suppress(EngineError):
        await bench.backend.hook(raw)
