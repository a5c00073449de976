"""An Evolution server and what stands before it → the engine: answers that are late, errors, HTML,
half, empty, of before or none, at any request, while WhatsApp goes away and comes back, phones
scan, the server restarts, and an operator asks for whatever there is. A tenth of the real times."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from agent.engines.evolution.backend import EvolutionBackend
from agent.engines.evolution.settings import read_settings
from agent.errors import EngineError
from tests.engines.evolution.conftest import PACE, Bench, Heard
from tests.standin.evolution import KEY, StandIn, Times
from tests.standin.evolution.instances import Instance

CASES = 10
VERSIONS = ("1.8.6", "1.8.6", "2.3.7")
NAMES = ("paired", "paired-too", "shows-a-code")
ROUTES = ("", "connectionState", "/instance/connect/", "fetchInstances", "setPresence", "create")
FAULTS = ("slow", "html", "failing", "licence", "refused", "half", "empty", "earlier", "reset")
TIMES = Times.fast(silent_try=2.0, again=0.3, login=0.3, code_holds=4.0, loop=0.2)
STAYS = replace(PACE, stays_closed=3.0, looks_apart=1.0, code_holds=4.0, gone_wait=0.5)
SETTLED = 60.0
"""Seconds until all is as it was, once the faults are over; a moment on a quiet machine."""
Step = dict[str, Any]


@dataclass(slots=True)
class World:
    folder: Path
    played: int = 0


def draw(chance: Random) -> list[Step]:
    first = {"do": "server", "version": chance.choice(VERSIONS), "seed": chance.randrange(10**6)}
    kinds = (_fault, _fault, _happens, _look, _look, _look, _wait)
    return [first, *(chance.choice(kinds)(chance) for _ in range(chance.randint(6, 16)))]


def _fault(chance: Random) -> Step:
    kind = chance.choice([*FAULTS, ""])
    late = sorted(chance.uniform(0.1, 1.0) for _ in range(2))
    return {"do": "fault", "kind": kind, "route": chance.choice(ROUTES), "late": late}


def _happens(chance: Random) -> Step:
    """Over there: to a session, to WhatsApp, to the server."""
    what = chance.choice(["silent", "back", "drop", "drop", "scan", "restart", "dead"])
    return {"do": "happens", "what": what, "name": chance.choice(NAMES)}


def _look(chance: Random) -> Step:
    asked = ("probe", "probe", "probe", "deep", "connect", "restart", "qr", "pairing_code")
    return {"do": "ask", "asked": [chance.choice(asked) for _ in range(chance.randint(1, 6))]}


def _wait(chance: Random) -> Step:
    return {"do": "wait", "seconds": chance.choice([0.05, 0.3, 1.0])}


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    yield World(folder)


async def play(world: World, case: list[Step]) -> None:
    world.played += 1
    first = next((step for step in case if step["do"] == "server"), {"version": "1.8.6", "seed": 0})
    standin = await StandIn.open(first["version"], times=TIMES)
    backend, heard = None, Heard()
    try:
        for name in NAMES:
            standin.add(name, "open" if name.startswith("paired") else "connecting")
        told = {"name": "eu", "url": standin.url, "key": KEY, "timeout": 1.5}
        folder = world.folder / str(world.played)
        backend = EvolutionBackend(folder, read_settings(told), heard, STAYS)
        bench = Bench(backend, standin, heard, folder)
        await backend.check()
        async with asyncio.TaskGroup() as asked:
            await _play(bench, asked, case, Random(first["seed"]))
        await _come_back(bench)
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        if backend is not None:
            await backend.close()
        await standin.close()
    assert heard.crashes == [], heard.crashes


async def _play(bench: Bench, asked: asyncio.TaskGroup, case: list[Step], chance: Random) -> None:
    for step in case:
        match step["do"]:
            case "fault":
                first, last = step["late"]
                front = bench.standin.front
                front.chance = chance
                await front.set(step["kind"], first, step["route"], up_to=last)
            case "happens":
                await _happen(bench, step["what"], step["name"])
            case "ask":
                for name in NAMES:
                    for what in step["asked"]:
                        asked.create_task(_ask(bench, name, what))
                await asyncio.sleep(0)
            case "wait":
                await asyncio.sleep(step["seconds"])
        _intact(bench)
    await bench.standin.front.set("")


async def _happen(bench: Bench, what: str, name: str) -> None:
    standin, instance = bench.standin, bench.standin.instances[name]
    match what:
        case "silent" | "back":
            standin.silence(what == "silent")
        case "drop" if instance.state == "open":
            instance.drop(408)
        case "scan" if instance.scan():
            instance.drop(515)
        case "dead" if instance.state == "open":
            instance.dead = "silent"
        case "restart":
            await standin.restart_process(0.2)


async def _ask(bench: Bench, name: str, what: str) -> None:
    """Whatever it answers: an error must be one that the worker can tell. 2.x is asked at once to
    connect what it says is closed, so nobody orders it here."""
    if what in ("connect", "restart") and not bench.standin.old:
        return
    session = bench.hold(name)
    asks: dict[str, Callable[[], Awaitable[Any]]] = {
        "probe": session.probe,
        "deep": lambda: session.probe(deep=True),
        "connect": session.connect,
        "restart": session.restart,
        "qr": session.qr,
        "pairing_code": lambda: session.command("pairing_code", {"phone": "+55 11 98888-7777"}),
    }
    with contextlib.suppress(EngineError):
        await asks[what]()


def _intact(bench: Bench) -> None:
    for instance in _paired(bench):
        second = instance.second_logins if bench.standin.old else 0
        assert second == 0, f"{instance.name} has a second login"
        assert instance.creds, f"the pairing of {instance.name} ended"


def _paired(bench: Bench) -> list[Instance]:
    """Those that were it from the beginning: a code that is asked for while its session is ordered
    to begin again may be asked for twice."""
    return [bench.standin.instances[name] for name in NAMES if name.startswith("paired")]


async def _come_back(bench: Bench) -> None:
    """All is well over there: each pairing is open, and said to be."""
    standin = bench.standin
    for instance in standin.instances.values():
        instance.dead = ""
    standin.silence(False)
    until = asyncio.get_running_loop().time() + SETTLED
    while True:
        said = {name: await _status(bench, name) for name in NAMES}
        if all(said[instance.name] == "CONNECTED" for instance in _paired(bench)):
            break
        assert asyncio.get_running_loop().time() < until, said
        await asyncio.sleep(0.2)
    _intact(bench)


async def _status(bench: Bench, name: str) -> str:
    try:
        claim = (await bench.hold(name).probe()).claim
        if claim.status == "DISCONNECTED" and "reconnect" not in claim.useless:
            await bench.hold(name).connect()
        return str(claim.status)
    except EngineError as error:
        return str(error)
