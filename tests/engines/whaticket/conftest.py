"""A backend against the stand-in, as a worker would hold it."""

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from agent.core.model import Claim, Happening, ServerClaim, parse_instance_id
from agent.engines.base import KeepsNothing
from agent.engines.whaticket.backend import WhaticketBackend, open_backend
from agent.engines.whaticket.session import WhaticketSession
from tests.lacking import lacks
from tests.standin.whaticket.keys import RedisKeys
from tests.standin.whaticket.server import PASSWORD, USER, StandIn
from tests.standin.whaticket.session import Session

PEERS = ["5511999990001", "5511999990002", "551199999000"]
"""The last one is the beginning of the others: the keys of one may not be taken for another's."""
LIDS = {"5511999990001": "123456789012345"}


@dataclass
class Heard(KeepsNothing):
    """A Reporter and a BackendReporter that write down."""

    claims: list[Claim] = field(default_factory=list)
    happenings: list[Happening] = field(default_factory=list)
    servers: list[ServerClaim] = field(default_factory=list)
    crashes: list[BaseException] = field(default_factory=list)

    def claim(self, claim: Claim) -> None:
        self.claims.append(claim)

    def happened(self, happening: Happening) -> None:
        self.happenings.append(happening)

    def server(self, claim: ServerClaim) -> None:
        self.servers.append(claim)

    def progress(self) -> None:
        pass

    def crashed(self, error: BaseException) -> None:
        self.crashes.append(error)

    def errors(self) -> list[tuple[str, str]]:
        return [
            (each.detail["pattern"], each.detail["peer"])
            for each in self.happenings
            if each.kind == "crypto_error"
        ]


@dataclass
class Bench:
    """One backend, its stand-in and what was heard."""

    stand_in: StandIn
    root: Path
    settings: dict[str, Any]
    heard: Heard = field(default_factory=Heard)
    of: dict[str, Heard] = field(default_factory=dict)
    backend: WhaticketBackend | None = None

    async def open(self, **settings: Any) -> WhaticketBackend:
        self.settings |= settings
        self.backend = open_backend(self.root / "backend", self.settings, self.heard)
        await self.backend.open()
        return self.backend

    def hold(self, id: str, remote: str = "", *, adopted: bool = False) -> WhaticketSession:
        assert self.backend is not None
        self.of[id] = Heard()
        return self.backend.hold(
            parse_instance_id(id), {"remote": remote, "adopted": adopted}, self.of[id]
        )

    async def close(self) -> None:
        backend, self.backend = self.backend, None
        if backend is not None:
            await backend.close()

    async def paired(self, id: str, name: str = "") -> Session:
        session = self.stand_in.add(id, name)
        await session.pair(f"55110000000{id}", PEERS, LIDS)
        session.start()
        return session

    @property
    def kept(self) -> Path:
        return self.root / "backend"

    def auth(self, id: str) -> Path:
        return self.root / "auth" / id

    def crashes(self) -> list[BaseException]:
        return [*self.heard.crashes, *(e for heard in self.of.values() for e in heard.crashes)]


OpenBench = Callable[..., Awaitable[Bench]]


@pytest.fixture
async def open_bench(tmp_path: Path) -> AsyncIterator[OpenBench]:
    """`preset`, `keys` and `tls` for the stand-in; the rest are the backend's settings."""
    async with contextlib.AsyncExitStack() as stack:
        benches: list[Bench] = []

        async def make(**told: Any) -> Bench:
            how = {key: told.pop(key) for key in ("keys", "tls", "token_seconds") if key in told}
            preset = told.get("preset", "spec")
            stand_in = await stack.enter_async_context(
                StandIn.opened(tmp_path, preset=preset, **how)
            )
            settings = {
                "name": "wt",
                "url": stand_in.url,
                "user": USER,
                "password": PASSWORD,
                "timeout": 20.0,
                "auth_folder": f"{tmp_path}/auth/{{id}}",
                "disconnect_within": 30.0,
                "connect_within": 60.0,
                **told,
            }
            bench = Bench(stand_in, tmp_path, settings)
            benches.append(bench)
            return bench

        yield make
        for bench in benches:
            await bench.close()
            assert bench.crashes() == []


@dataclass
class RedisServer:
    url: str
    password: str
    process: subprocess.Popen[bytes]

    def client(self, db: int = 0) -> Any:
        return redis.asyncio.from_url(f"{self.url}?db={db}", password=self.password or None)

    def keys(self, client: Any) -> RedisKeys:
        return RedisKeys(client)

    @property
    def full_url(self) -> str:
        if not self.password:
            return f"{self.url}?db=3"
        return self.url.replace("unix://", f"unix://:{self.password}@") + "?db=3"


@pytest.fixture
def redis_server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A Redis of its own on a Unix socket; with a password where the test asks for one."""
    program = shutil.which("redis-server")
    if program is None:
        lacks("redis-server is not installed")
    password = getattr(request, "param", "")
    place = Path(f"/tmp/wa-redis-{os.getpid()}-{id(tmp_path)}.sock")
    arguments = ["--port", "0", "--unixsocket", str(place), "--save", "", "--appendonly", "no"]
    if password:
        arguments += ["--requirepass", password]
    process = subprocess.Popen(
        [program, *arguments, "--dir", str(tmp_path)], stdout=subprocess.DEVNULL
    )
    yield RedisServer(f"unix://{place}", password, process)
    process.kill()
    process.wait()
    place.unlink(missing_ok=True)


@pytest.fixture
async def redis_client(redis_server: RedisServer) -> AsyncIterator[Any]:
    client = redis_server.client(3)
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(redis.exceptions.ConnectionError):
                await client.ping()
                break
            await asyncio.sleep(0.05)
    yield client
    await client.aclose()
