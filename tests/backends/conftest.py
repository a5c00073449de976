"""A server's task against a stand-in of its server, both in one loop and in virtual time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.backends.backend import EVERY, Backend
from agent.clock import boot_now
from agent.config.config import BackendDeclaration
from agent.core.words import Claim, InstanceId
from agent.engines.tasks import cancel
from agent.errors import EngineError
from tests.fakes.servers import make_backend, take
from tests.standin.evolution import KEY, StandIn, Times
from tests.standin.evolution.instances import Instance as There
from tests.world import virtual

AT_ONCE = EVERY + 1.0


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"virtual": virtual.PatientLoop}


@pytest.fixture(autouse=True)
def virtual_clocks() -> Iterator[None]:
    with virtual.virtual_time():
        yield


@dataclass
class Bench:
    """A server's task."""

    server: Backend

    async def do(self, what: str, id: str = "one", /, **args: object) -> Mapping[str, Any]:
        """As a pass or an order does it."""
        return await self.server.seats[InstanceId(id)].call(what, args, timeout=600)

    async def refusal(self, what: str, id: str = "one", /, **args: object) -> str:
        """The code of the error that it ends in."""
        with pytest.raises(EngineError) as caught:
            await self.do(what, id, **args)
        return caught.value.code

    def claim(self, name: str = "one") -> Claim:
        fact = self.server.seats[InstanceId(name)].fact
        assert fact is not None
        return fact.claim

    async def until(self, probe: Callable[[], object], within: float) -> None:
        begun = boot_now()
        while not probe():
            assert boot_now() - begun < within, f"not within {within} s"
            await asyncio.sleep(0.25)


@dataclass
class Watched(Bench):
    """A server's task, the stand-in that it watches, and what it said."""

    standin: StandIn
    said: list[Claim] = field(default_factory=list)
    folder: Path = Path()

    async def hold(
        self, name: str, state: str = "open", *, adopted: bool = True, paired: bool = False
    ) -> There:
        """A session that has been on the server for long."""
        instance = self.standin.add(name, state)
        await self.watch(name, adopted=adopted, paired=paired or state == "open")
        return instance

    async def connected(self, name: str = "one") -> There:
        """It is open, and WhatsApp answered through it."""
        instance = await self.hold(name)
        await self.until_it_says("CONNECTED", AT_ONCE, name)
        return instance

    async def watch(self, name: str, *, adopted: bool = True, paired: bool = False) -> None:
        await take(self.server, name, adopted=adopted, paired=paired, heard=self.said.append)

    def says(self, name: str = "one") -> str:
        fact = self.server.seats[InstanceId(name)].fact
        if fact is None:
            return "nothing"
        status = str(fact.claim.status)
        if status == "CONNECTED" and fact.proved_at() is None:
            return "unproved"
        return f"{status} {fact.claim.reason}".strip()

    async def until_it_says(self, words: str, within: float, name: str = "one") -> None:
        await self.until(lambda: self.says(name) == words, within)

    def asked(self, route: str) -> int:
        """Requests by verb and route, for all sessions."""
        return self.standin.asked[route]


Watch = Callable[..., Awaitable[Watched]]


def declare(url: str, **more: object) -> BackendDeclaration:
    values: dict[str, object] = {"name": "evo", "engine": "evolution", "url": url, "key": KEY}
    return BackendDeclaration(**values | more)  # type: ignore[arg-type]


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    async with contextlib.AsyncExitStack() as stack:

        async def begin(version: str = "2.3.7", **more: object) -> Watched:
            standin = await StandIn.open(version, times=Times())
            stack.push_async_callback(standin.close)
            server = make_backend(declare(standin.url, **more), tmp_path)
            stack.push_async_callback(cancel, asyncio.create_task(server.run(), name="server"))
            return Watched(server, standin, folder=tmp_path / "evo")

        yield begin


@pytest.fixture(params=["2.3.7", "1.8.6"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)
