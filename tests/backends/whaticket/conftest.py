"""A whaticket server's task against a stand-in of its server, in virtual time."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from agent.backends.whaticket.contract import BackendSettings
from agent.config.config import BackendDeclaration
from agent.core.words import Happening, InstanceId
from tests.backends.conftest import Bench as TaskBench
from tests.fakes.servers import make_backend, take
from tests.standin.whaticket.server import PASSWORD, USER, StandIn
from tests.standin.whaticket.session import Pace, Session

PEER, OTHER, LONGER = "5511999990001", "5511999990002", "551199999000"
"""The last one is the beginning of the others: the keys of one may not be taken for another's."""
LIDS = {PEER: "123456789012345"}


@dataclass
class Bench(TaskBench):
    """A server's task, the stand-in that it watches, and what both said."""

    standin: StandIn
    root: Path
    declared: BackendDeclaration
    happened: list[tuple[str, Happening]] = field(default_factory=list)

    def begin(self) -> None:
        self.server = make_backend(self.declared, self.root)
        self.task = asyncio.create_task(self.server.run(), name="server")

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])

    async def paired(self, id: str = "7") -> Session:
        """A session that has been connected for long."""
        session = self.standin.add(id)
        await session.pair(f"55110000000{id}", [PEER, OTHER, LONGER], LIDS)
        session.start()
        await self.hold(id)
        await self.until(lambda: self.status(id) == "CONNECTED", 20)
        return session

    async def hold(self, remote: str, *, adopted: bool = True) -> None:
        def note(what: Happening) -> None:
            self.happened.append((remote, what))

        await take(self.server, remote, adopted=adopted, happened=note)

    def status(self, remote: str = "7") -> str:
        seat = self.server.seats[InstanceId(remote)]
        return "" if seat.fact is None else str(seat.fact.claim.status)

    def auth(self, id: str = "7") -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.root / "auth" / id).iterdir()}

    def errors(self, remote: str = "7") -> list[tuple[str, str]]:
        heard = [it for name, it in self.happened if name == remote and it.kind == "crypto_error"]
        return [(it.detail["pattern"], it.detail["peer"]) for it in heard]

    @property
    def acts(self) -> list[str]:
        """Requests that change something."""
        looks = re.compile("GET /whatsapp/|POST /auth")
        return [it for it in self.standin.requests if not looks.match(it)]


OpenBench = Callable[..., Awaitable[Bench]]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[OpenBench]:
    async with contextlib.AsyncExitStack() as stack:

        async def begin(**own: object) -> Bench:
            preset = str(own.get("preset", "spec"))
            opening = StandIn.opened(tmp_path, preset=preset, pace=Pace(write_every=2.0))
            standin = await stack.enter_async_context(opening)
            login = {"user": USER, "password": PASSWORD, "auth_folder": f"{tmp_path}/auth/{{id}}"}
            settings = BackendSettings(**login | own)  # type: ignore[arg-type]
            declared = BackendDeclaration("wt", "whaticket", standin.url, own=settings)
            opened = Bench(make_backend(declared, tmp_path), standin, tmp_path, declared)
            opened.begin()
            while opened.server.api is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            stack.push_async_callback(opened.end)
            return opened

        yield begin


class Killed(BaseException):
    """As by SIGKILL."""


def die_at(step: int, patched: pytest.MonkeyPatch, *names: str) -> list[int]:
    """Killed before its so manieth call of one of these; how many there were."""
    count = [0]
    for name in names:
        place, _, function = name.rpartition(".")
        module, _, kind = place.partition(":")
        target = getattr(import_module(module), kind) if kind else import_module(module)

        def call(*args: Any, _do=getattr(target, function), **more: Any) -> Any:  # noqa: B008
            count[0] += 1
            if count[0] > step:
                raise Killed
            return _do(*args, **more)

        patched.setattr(target, function, call)
    return count
