"""scripts/trial worlds [--days N] [--sessions N] [--seed S]

Draws faults of the network, WhatsApp, workers, the agent and its operator over a whole agent, and
looks each day whether every session is back with its pairing, and whether one that a person stopped
stayed stopped. Ends with 1, the seed and the story at the first day that is not well.
"""

import argparse
import asyncio
import json
import logging
import math
import random
import sys
import tempfile
import time
from pathlib import Path

from tests import clocks  # noqa: F401 - before all that takes a clock
from tests.world.virtual import Loop, virtual_time
from tests.world.world import WorldAgent

DAY = 86_400.0
EVERY = 1200.0
"""Seconds from one fault to the next, on average."""
BACK_WITHIN = 7200.0
"""After all faults ended: the pauses of a circuit and of a ban's last try lie within it."""
STOP_WITHIN = 60.0
OF_ONE = ("drop", "zombie", "crash", "conflict", "stuck-loading", "temp-ban", "bad-mac", "slow")


class Wrong(Exception):
    """A promise was not kept."""


class World:
    def __init__(self, agent: WorldAgent, ids: list[str], seed: int) -> None:
        self.agent, self.ids = agent, ids
        self.draw = random.Random(seed)
        self.story: list[str] = []
        self.stopped: dict[str, float] = {}
        """Those that an operator stopped, and when."""
        self.taken: set[str] = set()
        """Another client had them: after two of those the agent leaves it to a person."""
        self.devices: dict[str, str] = {}

    def note(self, words: str) -> None:
        self.story.append(f"{asyncio.get_running_loop().time():.0f} {words}")

    def device(self, id: str) -> str:
        file = self.agent.state / "sessions" / id / "session" / "sandbox.json"
        return str(json.loads(file.read_text())["device"])

    async def begin(self) -> None:
        await self.agent.start()
        for id in self.ids:
            await self.agent.create(id)
        await self.must_be_well(BACK_WITHIN)
        self.devices = {id: self.device(id) for id in self.ids}

    async def day(self) -> None:
        end = asyncio.get_running_loop().time() + DAY
        while asyncio.get_running_loop().time() < end:
            await asyncio.sleep(self.draw.expovariate(1 / EVERY))
            await self.fault()
            self.must_be_stopped()
        self.note("the day is over: all faults end")
        for id in sorted(self.stopped):
            await self.agent.do("POST", f"/api/instance/{id}/start")
        self.stopped.clear()
        for id in self.ids:
            await self.agent.ask("POST", f"/api/instance/{id}/sandbox/fault", {"clear": True})
        for id in sorted(self.taken):
            await self.agent.ask("POST", f"/force-reconnection/{id}")
        self.taken.clear()
        await self.must_be_well(BACK_WITHIN)

    async def fault(self) -> None:
        id, seconds = self.draw.choice(self.ids), round(self.draw.uniform(5, 1800))
        match self.draw.choice(("one", "one", "one", "network", "kill", "restart", "operator")):
            case "one":
                name = self.draw.choice(OF_ONE)
                self.note(f"{name} of {id} for {seconds} s")
                self.taken |= {id} if name == "conflict" else set()
                await self.agent.fault(id, name, seconds)
            case "network":
                self.note(f"the network is away for {seconds} s")
                await asyncio.gather(*(self.agent.fault(one, "drop", seconds) for one in self.ids))
            case "kill":
                self.note("the agent is killed, and back a minute later")
                await self.agent.kill()
                await asyncio.sleep(60)
                await self.agent.start()
            case "restart":
                self.note("the agent is stopped in order, and started")
                await self.agent.stop()
                await self.agent.start()
            case "operator" if id in self.stopped:
                self.note(f"an operator starts {id}")
                del self.stopped[id]
                await self.agent.do("POST", f"/api/instance/{id}/start")
            case _:
                self.note(f"an operator stops {id}")
                await self.agent.do("POST", f"/api/instance/{id}/stop")
                self.stopped[id] = asyncio.get_running_loop().time()

    def must_be_stopped(self) -> None:
        for id, member in self.agent.machine.known().items():
            since = self.stopped.get(id, math.inf)
            if not member.at_rest and asyncio.get_running_loop().time() > since + STOP_WITHIN:
                raise Wrong(f"{id} runs, and an operator had stopped it")

    async def must_be_well(self, within: float) -> None:
        end = asyncio.get_running_loop().time() + within
        while bad := await self.not_connected():
            if asyncio.get_running_loop().time() > end:
                raise Wrong(f"after {within:.0f} s not connected: {bad}")
            await asyncio.sleep(30)
        for id, device in self.devices.items():
            if self.device(id) != device:
                raise Wrong(f"{id} has another device: its pairing was lost")

    async def not_connected(self) -> list[str]:
        shown = (await self.agent.do("GET", "/api/instances?limit=500"))["instances"]
        return [
            f"{one['id']}: {one['connection_status']}, {one['sentence']}"
            for one in shown
            if one["connection_status"] != "CONNECTED"
        ]


async def spend(options: argparse.Namespace, folder: Path, seed: int) -> str:
    config = folder / "agent.toml"
    config.write_text('[agent]\nhost = "process"\n')
    ids = [f"s{number}" for number in range(options.sessions)]
    world = World(WorldAgent(folder / "state", config), ids, seed)
    try:
        await world.begin()
        for _ in range(options.days):
            await world.day()
    except Wrong as wrong:
        return "\n".join((*world.story, f"seed {seed}: {wrong}"))
    finally:
        await world.agent.close()
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/trial worlds", description=__doc__)
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--sessions", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    begun = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        virtual_time(options.seed),
        asyncio.Runner(loop_factory=Loop) as runner,
    ):
        wrong = runner.run(spend(options, Path(folder), options.seed))
    if wrong:
        print(wrong)
        return 1
    spent = time.perf_counter() - begun
    print(f"{options.days} days of {options.sessions} sessions, seed {options.seed}: well", end="")
    print(f" ({options.days * 3600 / spent:.0f} days an hour)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
