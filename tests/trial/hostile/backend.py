"""An Evolution server and what stands before it → the engine: answers that are late, errors, HTML,
half, empty, packed, of before or none, refusals that repeat the key, at any request;
routes that a proxy does not pass, odd rows, webhooks that come late or lie; while WhatsApp goes
away and comes back, phones scan, people delete sessions there, the server and the worker restart,
and an operator asks for whatever there is. A tenth of the real times."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from tests.engines.evolution.conftest import PACE

from agent.errors import EngineError
from tests.standin.evolution import StandIn, Times
from tests.trial.hostile.serving import acts
from tests.trial.hostile.serving.acts import MADE, NAMES, PAIRED, Step
from tests.trial.hostile.serving.oracle import Bench, intact, judge_words
from tests.trial.hostile.serving.playing import play_steps

CASES = 8
TIMES = Times.fast(silent_try=2.0, again=0.3, login=0.3, code_holds=4.0, loop=0.2)
STAYS = replace(PACE, stays_closed=3.0, looks_apart=1.0, code_holds=4.0, gone_wait=0.5)
STAYS = replace(STAYS, code_wait=1.0, pairing_wait=1.0)
SETTLED = 60.0
"""Seconds until all is as it was, once the faults are over; a moment on a quiet machine."""
draw = acts.draw


@dataclass(slots=True)
class World:
    folder: Path
    played: int = 0


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    yield World(folder)


async def play(world: World, case: list[Step]) -> None:
    world.played += 1
    first = next((step for step in case if step["do"] == "server"), {"version": "1.8.6", "seed": 0})
    standin = await StandIn.open(first["version"], times=TIMES)
    bench = Bench(standin, world.folder / str(world.played), STAYS)
    logging.getLogger("agent").addHandler(bench.log)
    try:
        for name in NAMES:
            if name != MADE:
                standin.add(name, "open" if name in PAIRED else "connecting")
        bench.there = dict(standin.instances)
        standin.without, standin.front.packs = first.get("without", ""), first.get("packs", False)
        bench.begin()
        await bench.backend.check()
        await bench.hold(MADE).connect()
        await play_steps(bench, case, Random(first["seed"]))
        await _come_back(bench)
    finally:
        logging.getLogger("agent").removeHandler(bench.log)
        await bench.backend.close()
        await standin.close()
    judge_words(bench)
    assert bench.heard.crashes == [], bench.heard.crashes


async def _come_back(bench: Bench) -> None:
    """All is well over there: each pairing is open, and said to be; so is the server."""
    standin = bench.standin
    for instance in standin.instances.values():
        instance.dead = ""
    standin.silence(False)
    until = asyncio.get_running_loop().time() + SETTLED
    while True:
        said = {name: await _status(bench, name) for name in NAMES}
        server = await bench.backend.check()
        if server.up and all(said[each.name] == "CONNECTED" for each in bench.paired()):
            break
        assert asyncio.get_running_loop().time() < until, (said, server)
        await asyncio.sleep(0.2)
    intact(bench)
    listed = {session.name for session in await bench.backend.sessions()}
    assert listed >= {each.name for each in bench.paired()}, f"an odd row hides others: {listed}"


async def _status(bench: Bench, name: str) -> str:
    try:
        claim = (await bench.hold(name).probe()).claim
        if claim.status == "DISCONNECTED" and "reconnect" not in claim.useless:
            await bench.hold(name).connect()
        return str(claim.status)
    except EngineError as error:
        return str(error)
