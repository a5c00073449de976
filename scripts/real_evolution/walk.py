"""Rounds of faults on one real server and one agent: what each must hold, and what it cost."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.real_evolution.bed import Bed, open_bed, running_agent, until
from scripts.real_evolution.proxy import Proxy
from scripts.real_evolution.server import KEY
from tests.daemon.conftest import RunningAgent

BACK_WITHIN, SHOWN_WITHIN = 90.0, 120.0
"""Seconds: of paired sessions after a fault, of a new one's code."""
MOST_LOGINS = 3
"""Logins of one paired session in a round: the server's own, the agent's, and one that came too
late."""
ANSWERED_WITHIN = 15.0
"""Seconds: a request for a repair has its answer or 202 after ten, on a busy machine."""
SHORT = 60.0
"""Seconds of a fault at most, where WhatsApp is there."""
TRACEBACK = b"Traceback (most recent call last)"


@dataclass(slots=True)
class Cost:
    """Costs of one round; `broke` names the promises that did not hold."""

    round: str
    back: float = 0.0
    """Seconds after the fault until all paired sessions were connected again."""
    logins: int = 0
    """Logins of the paired session that had the most."""
    connects: int = 0
    """GET connect of paired sessions."""
    answered: float = 0.0
    """Seconds that the slowest answer to an operator took."""
    broke: list[str] = field(default_factory=list)


class Walk:
    def __init__(self, bed: Bed, proxy: Proxy, agent: RunningAgent) -> None:
        self.server, self.line, self.whatsapp = bed.server, bed.line, bed.whatsapp
        self.paired, self.codes = bed.paired, bed.codes
        self.proxy, self.agent = proxy, agent

    async def play(self, name: str, seconds: float) -> Cost:
        cost, begun = Cost(name), time.time()
        try:
            await ROUNDS[name](self, seconds, cost)
        finally:
            await self.proxy.front.set("")
            await self.line.mend()
        over = time.monotonic()
        try:
            await until(self.is_well, BACK_WITHIN)
        except TimeoutError:
            cost.broke.append(f"not connected after {BACK_WITHIN:.0f} s: {await self._missing()}")
        cost.back = time.monotonic() - over
        await self._count(cost, begun)
        return cost

    async def _count(self, cost: Cost, begun: float) -> None:
        asked = [line for at, line in self.proxy.asked if at >= begun]
        logins = await asyncio.to_thread(self.whatsapp.logins)
        fresh = Counter(it["user"] for it in logins if it["begun"] / 1000 >= begun)
        most = max(self.paired, key=lambda name: fresh[self.paired[name]])
        cost.logins = fresh[self.paired[most]]
        cost.connects = sum(
            line == f"GET /instance/connect/{name}" for line in asked for name in self.paired
        )
        if cost.logins > MOST_LOGINS:
            cost.broke.append(f"{most} logged in {cost.logins} times")
        for line in asked:
            verb, _, name = line.rpartition("/")
            if verb.startswith("DELETE") and name in self.paired:
                cost.broke.append(f"{line}: a pairing was to end")
        if cost.answered > ANSWERED_WITHIN:
            cost.broke.append(f"a request was answered after {cost.answered:.1f} s")
        if TRACEBACK in await asyncio.to_thread(self.agent.log.read_bytes):
            cost.broke.append("agent.log has an error that the agent did not expect")

    # what an operator does meanwhile

    async def ask(self, cost: Cost, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        begun = time.monotonic()
        status, answer = await self.agent.ask(method, path, body)
        cost.answered = max(cost.answered, time.monotonic() - begun)
        if status == 500:
            cost.broke.append(f"{method} {path}: 500")
        return status, answer

    async def set_up(self, cost: Cost, name: str) -> None:
        told = {"name": name, "instanceName": name, "backend": "evo"}
        await self.ask(cost, "POST", "/api/v1/whatsapp/setup", told)

    async def meddle(self, cost: Cost) -> None:
        """All that a person may try on sessions that do not answer."""
        one, two, three, *_ = [*self.paired] * 3
        await asyncio.gather(
            self.set_up(cost, one),
            self.set_up(cost, self.codes[0]) if self.codes else asyncio.sleep(0),
            self.ask(cost, "POST", f"/api/instance/{two}/ensure-healthy"),
            self.ask(cost, "POST", f"/api/instance/{three}/restart"),
            self.ask(cost, "POST", f"/api/instance/{one}/recover"),
        )

    # what is so

    async def _missing(self) -> list[str]:
        """Paired sessions that are not connected, as the server or the agent says."""
        shown = await self.agent.do("GET", "/api/instances?limit=500")
        up = {it["id"] for it in shown["instances"] if it["connection_status"] == "CONNECTED"}
        return [it for it in self.paired if it not in up or not await self.server.is_open(it)]

    async def is_well(self) -> bool:
        return not await self._missing()

    async def status(self, name: str) -> str:
        return await self.agent.status(name) if await self.agent.knows(name) else "absent"


async def _silence(walk: Walk, seconds: float, cost: Cost) -> None:
    """H0, H1, H2, H4: WhatsApp is away, and each GET connect takes 1-9 s on its way."""
    await walk.proxy.front.set("slow", 1.0, "/instance/connect/", up_to=9.0)
    await walk.line.cut(silent=True)
    await _meanwhile(walk, seconds, cost)


async def _made_late(walk: Walk, seconds: float, cost: Cost) -> None:
    """H5: a session is asked for while every answer takes 2-10 s."""
    await walk.proxy.front.set("slow", 2.0, up_to=10.0)
    begun = time.monotonic()
    await walk.set_up(cost, "made-late")
    await asyncio.sleep(max(begun + min(seconds, SHORT) - time.monotonic(), 0.0))
    await walk.proxy.front.set("")
    try:
        await until(lambda: _shows_code(walk, "made-late"), SHOWN_WITHIN)
    except TimeoutError:
        cost.broke.append(f"made-late shows no code: {await walk.status('made-late')}")


async def _shows_code(walk: Walk, name: str) -> bool:
    return await walk.status(name) == "QR_REQUIRED"


async def _meanwhile(walk: Walk, seconds: float, cost: Cost) -> None:
    """A fault lasts so long; a person tries what there is."""
    begun = time.monotonic()
    await asyncio.sleep(seconds / 8)
    await walk.meddle(cost)
    await asyncio.sleep(max(begun + seconds - time.monotonic(), 0.0))


def _fault(kind: str) -> Callable[[Walk, float, Cost], Coroutine[Any, Any, None]]:
    async def play(walk: Walk, seconds: float, cost: Cost) -> None:
        await walk.proxy.front.set(kind)
        await _meanwhile(walk, min(seconds, SHORT), cost)

    return play


async def _killed(walk: Walk, seconds: float, cost: Cost) -> None:
    await walk.server.kill()
    await walk.server.start()


ROUNDS: dict[str, Callable[[Walk, float, Cost], Coroutine[Any, Any, None]]] = {
    "WhatsApp silent, GET connect held 1-9 s": _silence,
    "a session made while answers take 2-10 s": _made_late,
    "502 for every request": _fault("failing"),
    "a proxy's page for every request": _fault("html"),
    "half of each answer": _fault("half"),
    "each connection reset": _fault("reset"),
    "the server killed and started": _killed,
}


@asynccontextmanager
async def open_walk(source: Path, place: Path, sessions: int) -> AsyncIterator[Walk]:
    async with open_bed(source, place, sessions) as bed:
        proxy = await Proxy.open(bed.server.port)
        try:
            declared = f'\n[[backend]]\nname = "evo"\nengine = "evolution"\nkey = "{KEY}"\n'
            declared += f'url = "{proxy.url}"\nadopt = ["*"]\n'
            (place / "agent").mkdir()
            async with running_agent(place / "agent", declared, bed.line.port) as agent:
                walk = Walk(bed, proxy, agent)
                await until(walk.is_well, BACK_WITHIN)
                yield walk
        finally:
            await proxy.close()
