"""Machines of a fleet for tests of the API: real servers with TLS on one real PostgreSQL, each over
a supervisor in memory."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp

from agent.api.placement import still_placed
from agent.api.present import show_published
from agent.api.server import Server
from agent.config.sections import ApiSection
from agent.core.fleet.takeover import Word
from agent.core.model import Instance, InstanceId
from agent.core.view import InstanceView
from agent.fleet.coordinator import Machine, MachineRow, Member, NewSession
from agent.fleet.directory import Directory
from agent.fleet.peers import Peers
from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.fleet.postgres.schema import prepare
from agent.metrics.exporter import Exporter
from agent.supervise.fleet.commands import Commands
from agent.supervise.fleet.publishing import Publishing
from agent.wings.messages.part import MessagesPart
from tests.api.conftest import serve_fakes
from tests.fakes.messages import FakeMessages
from tests.fakes.supervisor import FakeKeys, FakeSupervisor, make_view
from tests.ports import free_port
from tests.standin.evolution.certificates import Certificates
from tests.standin.postgres import Postgres

BEARER = "5e" * 32
TTL = 60.0
"""Seconds for which a machine counts as alive: here none renews after the beginning of a test."""


@dataclass(frozen=True)
class Status:
    machines: Sequence[MachineRow]
    machines_age: float = 0.0
    database_reachable: bool = True
    database_error: str = ""
    database_since_wall: float = 0.0
    lease_holds: bool = True
    lease_seconds: float = 12.5
    lease_by: str = "renewal"
    halted: str = ""
    settled: bool = True
    waiting: Sequence[tuple[str, str, str]] = (("lost", "no machine is alive", "m9"),)
    moving: Sequence[tuple[str, str]] = (("sales", "m2"),)
    apart: Mapping[str, str] = field(default_factory=dict)
    elsewhere: Sequence[str] = ()
    memory_error: str = ""


@dataclass
class Face:
    """This machine's part in the fleet: the API's parts are real, the rest is noted."""

    machine: str
    address: str
    bearer: str
    directory: Directory
    peers: Peers
    coordinator: PostgresCoordinator
    member: Member
    supervisor: FakeSupervisor
    place_on: str = ""
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    promises: bool = True
    word: Word = field(default_factory=lambda: Word(True, "the database of this fleet"))

    async def status(self) -> Status:
        return Status(await self.coordinator.machines())

    def copy_behind(self, id: InstanceId) -> tuple[float, str]:
        return 12.0, f"{self.machine} cannot copy {id}"

    async def promise(self, machine: int, epoch: int, accepted: str) -> bool:
        self.asked.append(("promise", machine, epoch, accepted))
        return self.promises

    def would_promise(self, machine: int, epoch: int, accepted: str) -> bool:
        self.asked.append(("rehearsal", machine, epoch, accepted))
        return self.promises

    async def move(self, id: InstanceId, to: str | None, why: str) -> str:
        self.asked.append(("move", id, to, why))
        return to or "m2"

    async def drain(self, name: str) -> None:
        self.asked.append(("drain", name))

    async def undrain(self, name: str) -> None:
        self.asked.append(("undrain", name))

    async def forget(self, name: str) -> None:
        self.asked.append(("forget", name))

    async def accept(self) -> None:
        self.asked.append(("accept",))

    async def accept_copy(self, id: InstanceId) -> None:
        self.asked.append(("accept_copy", id))

    async def leave(self) -> None:
        self.asked.append(("leave",))

    async def place(self, instance: Instance, on: str, labels: Mapping[str, str]) -> MachineRow:
        self.asked.append(("place", instance.id, on, dict(labels)))
        return self.directory.machines[on or self.machine]

    async def create(
        self, instance: Instance, on: str, labels: Mapping[str, str], failover: str
    ) -> InstanceView:
        self.asked.append(("create", instance.id, on, dict(labels), failover))
        return await self.supervisor.create(instance)


@dataclass
class AMachine:
    name: str
    face: Face
    server: Server
    supervisor: FakeSupervisor
    keys: FakeKeys
    messages: FakeMessages
    socket_path: Path
    url: str
    """Where the other machines call it."""
    publishing: Publishing
    commands: Commands
    _tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    def local(self, **more: Any) -> aiohttp.ClientSession:
        """A trusted client on the Unix socket."""
        connector = aiohttp.UnixConnector(str(self.socket_path))
        return aiohttp.ClientSession("http://localhost", connector=connector, **more)

    async def key(self, name: str, *scopes: str) -> dict[str, str]:
        async with self.local() as session:
            made = await session.post("/api/keys", json={"name": name, "scopes": list(scopes)})
            assert made.status == 201, await made.text()
            return {"Authorization": "Bearer " + (await made.json())["token"]}

    async def own(self, *ids: str, **more: Any) -> None:
        """Sessions of this machine, in its supervisor and in the database."""
        face = self.face
        for id in ids:
            self.supervisor.known[InstanceId(id)] = make_view(id, **more)
        taken = await face.coordinator.register(
            face.member, [NewSession(id, "sandbox") for id in ids]
        )
        assert not taken

    def views_are_old(self) -> None:
        """The next list asks the database."""
        door = self.server._parts.fleet
        assert door is not None
        door.views._read_at = -10.0

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.face.peers.close()
        await self.server.close()
        await self.face.coordinator.close()


@dataclass(frozen=True)
class Address:
    listen: str
    certificate: str = ""
    certificate_key: str = ""

    @property
    def reached_at(self) -> str:
        return f"{'https' if self.certificate else 'http'}://{self.listen}"


@dataclass
class Fleet:
    postgres: Postgres
    certificates: Certificates
    folder: Path
    machines: dict[str, AMachine] = field(default_factory=dict)

    def coordinator(self, timeout: float = 10.0) -> PostgresCoordinator:
        return PostgresCoordinator(self.postgres.url.replace("owner@", "agent@"), TTL, timeout)

    async def add(
        self, name: str, *, certificate: str = "good", bearer: str = BEARER, **changes: Any
    ) -> AMachine:
        pem = self.certificates.folder / certificate
        files = (f"{pem}.pem", f"{pem}.key") if certificate else ("", "")
        address = Address(f"127.0.0.1:{free_port()}", *files)
        coordinator = self.coordinator()
        member = await coordinator.join(_machine(name, address.reached_at))
        supervisor, keys = FakeSupervisor(), FakeKeys()
        ca = str(self.certificates.authority) if certificate else ""
        face = Face(
            name,
            address.reached_at,
            bearer,
            Directory(coordinator, name),
            Peers(bearer, name, ca),
            coordinator,
            member,
            supervisor,
        )
        path = self.folder / f"{name}.sock"
        messages = FakeMessages(keys)
        server = await serve_fakes(
            replace(ApiSection(), **{"listen": "127.0.0.1:0", **changes}),
            supervisor,
            keys,
            Exporter(supervisor.views, supervisor.status, self.folder),
            path,
            of_wings={MessagesPart: messages.part},
            fleet=face,
            fleet_address=address,
        )
        made = AMachine(
            name,
            face,
            server,
            supervisor,
            keys,
            messages,
            path,
            address.reached_at,
            Publishing(supervisor.views, show_published, coordinator, lambda: face.member),
            Commands(supervisor, supervisor.views, coordinator, lambda: face.member, still_placed),
        )
        self.machines[name] = made
        return made

    def describe(self, name: str) -> Machine:
        """A machine as its next agent joins."""
        return _machine(name, self.machines[name].url)

    async def settle(self) -> None:
        """Every machine renews, publishes, and reads who owns what."""
        for machine in self.machines.values():
            face = machine.face
            rivals = frozenset(
                it.face.member.id for it in self.machines.values() if it is not machine
            )
            answer = await face.coordinator.renew(face.member, rivals, 0)
            assert answer.accepted
            face.member = replace(face.member, renewals=answer.renewals[face.member.id])
            await machine.publishing.publish()
        for machine in self.machines.values():
            await machine.face.directory.read()

    async def end(self, name: str) -> None:
        await self.machines.pop(name).end()


@asynccontextmanager
async def a_fleet(
    postgres: Postgres, certificates: Certificates, folder: Path
) -> AsyncIterator[Fleet]:
    postgres.sql("DROP SCHEMA IF EXISTS wa_agent CASCADE")
    await prepare(postgres.url)
    postgres.sql("GRANT wa_agent_machine TO agent")
    fleet = Fleet(postgres, certificates, folder)
    try:
        yield fleet
    finally:
        for name in list(fleet.machines):
            await fleet.end(name)


def _machine(name: str, address: str) -> Machine:
    installation = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
    return Machine(
        name, installation, address=address, engines=frozenset({"sandbox"}), version="0.1.0"
    )
