"""A stand-in server, a backend against it, and what the backend said."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.core.model import Claim, ConnectionStatus, Happening, InstanceId, ServerClaim
from agent.engines.base import KeepsNothing
from agent.engines.evolution.backend import EvolutionBackend
from agent.engines.evolution.session import EvolutionSession
from agent.engines.evolution.settings import Pace, read_settings
from tests.conftest import Eventually
from tests.standin.evolution import KEY, StandIn, Times
from tests.standin.evolution.certificates import Certificates

Status = ConnectionStatus
PACE = Pace(
    list_holds=0.05,
    list_spacing=0.0,
    old_list_holds=0.05,
    code_wait=20.0,
    pairing_wait=20.0,
    blank_limit=0.3,
    gone_wait=20.0,
    look_every=0.02,
    stays_closed=0.3,
    looks_apart=5.0,
    login=0.05,
    account_again=0.2,
    version_again=0.0,
)
"""Waits as long as a slow machine needs: a test whose wait is to end in vain has its own."""


@dataclass
class Heard(KeepsNothing):
    """A Reporter and a BackendReporter that remember."""

    claims: list[Claim] = field(default_factory=list)
    happenings: list[Happening] = field(default_factory=list)
    servers: list[ServerClaim] = field(default_factory=list)
    crashes: list[BaseException] = field(default_factory=list)

    def claim(self, claim: Claim) -> None:
        self.claims.append(claim)

    def happened(self, happening: Happening) -> None:
        self.happenings.append(happening)

    def progress(self) -> None: ...

    def server(self, claim: ServerClaim) -> None:
        self.servers.append(claim)

    def crashed(self, error: BaseException) -> None:
        self.crashes.append(error)

    def last(self) -> tuple[str, str]:
        if not self.claims:
            return ("", "")
        return (str(self.claims[-1].status), self.claims[-1].reason)


@dataclass
class Bench:
    backend: EvolutionBackend
    standin: StandIn
    heard: Heard
    folder: Path
    by_id: dict[str, Heard] = field(default_factory=dict)

    def hold(self, id: str, remote: str = "", *, adopted: bool = False) -> EvolutionSession:
        heard = self.by_id.setdefault(id, Heard())
        settings = {"remote": remote, "adopted": adopted}
        return self.backend.hold(InstanceId(id), settings, heard)


async def stays_closed(session: EvolutionSession, eventually: Eventually) -> None:
    """The agent has looked so often that its server makes no try of its own."""

    async def told() -> Status:
        return (await session.probe()).claim.status

    await eventually(told, Status.DISCONNECTED)


MakeStandIn = Callable[..., Awaitable[StandIn]]
MakeBench = Callable[..., Awaitable[Bench]]


@pytest.fixture
async def make_stand_in() -> AsyncIterator[MakeStandIn]:
    made: list[StandIn] = []

    async def make(version: str = "2.3.7", *, tls: Any = None, **times: Any) -> StandIn:
        made.append(await StandIn.open(version, times=Times.fast(**times), tls=tls))
        return made[-1]

    yield make
    for each in made:
        await each.close()
        broken = {name: it.broken_logins for name, it in each.instances.items()}
        assert not any(broken.values()), f"a question went into a login, and broke it: {broken}"


@pytest.fixture
async def make_bench(tmp_path: Path) -> AsyncIterator[MakeBench]:
    made: list[Bench] = []

    async def make(standin: StandIn, *, pace: Pace = PACE, **settings: Any) -> Bench:
        told = {"name": "eu", "url": standin.url, "key": KEY, "timeout": 20.0, **settings}
        heard = Heard()
        backend = EvolutionBackend(tmp_path, read_settings(told), heard, pace)
        made.append(Bench(backend, standin, heard, tmp_path))
        return made[-1]

    yield make
    for each in made:
        await each.backend.close()
        assert each.heard.crashes == []


@pytest.fixture
async def standin(make_stand_in: MakeStandIn) -> StandIn:
    return await make_stand_in()


@pytest.fixture
async def bench(standin: StandIn, make_bench: MakeBench) -> Bench:
    return await make_bench(standin)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))
