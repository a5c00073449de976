"""A fleet of real agents on one real PostgreSQL, with a witness of every session's connections."""

import asyncio
import io
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psycopg

from agent.fleet.coordinator import Owned, Stored
from agent.fleet.copies.arrive import open_copy
from agent.fleet.copies.take import LIMITS
from agent.fleet.key import FleetKey
from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.fleet.postgres.schema import prepare
from agent.vault.archives.unpack import read_archive_manifest
from agent.vault.copies.manifest import Manifest
from tests.fleet.agent import ANSWERS_WITHIN, MARGIN, TTL, FleetAgent
from tests.fleet.wires import Wires, wires
from tests.ports import free_port
from tests.standin.clock import SteppedClock
from tests.standin.postgres import Postgres, temporary_postgres
from tests.standin.witness import Witness, witness

SETTINGS = f"""\
[agent]
host = "process"

[start]
stagger = 0
spread = 0
first_check = 0.2
logins = 60

[health]
interval = 5
timeout = 2

[memory]
total = 0

[worker]
watchdog = 10
burst = 5
burst_interval = 30
stop_timeout = 5

[stop]
save = 3

[reconnect]
base = 0.2
jitter = 0

[fleet]
ttl = {TTL}
margin = {MARGIN}
"""
LONG = 12.0
"""Seconds of a lease within which an agent that was killed is back, on a busy machine as well."""
LASTING = MappingProxyType({"WA_AGENT_FLEET__TTL": f"{LONG:g}"})
FRAMES = 0.5
"""Seconds between two frames of a connected session: by them the witness knows that it sends."""
EMPTY: Mapping[str, str] = MappingProxyType({})
KEY = secrets.token_bytes(32)
DATABASE = "database"
BEGINS_WITHIN = 30.0
PORT = 5433
DAY = 100_000
"""Seconds between the boot clocks of two machines, more or less."""


class FleetOfAgents:
    """Made by `fleet_of_agents`."""

    def __init__(
        self, database: Postgres, agents: Sequence[FleetAgent], seen: Witness, net: Wires | None
    ) -> None:
        self.database, self.witness, self.wires = database, seen, net
        self.agents = {it.name: it for it in agents}
        self.key = FleetKey(KEY)
        self.newcomer: Callable[[str], FleetAgent]
        """Makes one more machine, which is not started yet."""

    def __getitem__(self, name: str) -> FleetAgent:
        return self.agents[name]

    async def create(self, *ids: str, on: str, **settings: Any) -> None:
        told = self.settings | settings
        await asyncio.gather(*(self._create(id, on, told) for id in ids))

    @property
    def settings(self) -> dict[str, Any]:
        """Of a session that the witness sees."""
        return {
            "scan": "auto",
            "scan_after": 0.05,
            "messages_per_minute": 0,
            "frame_every": FRAMES,
            "witness": self.witness.address,
        }

    async def _create(self, id: str, on: str, settings: Mapping[str, Any]) -> None:
        """A machine that has just begun takes none yet."""
        body = {"id": id, "engine": "sandbox", "settings": settings, "on": on}
        async with asyncio.timeout(BEGINS_WITHIN):
            while True:
                status, said = await self[on].ask("POST", "/api/instance", body)
                if status != 503:
                    assert status < 300, (id, status, said)
                    return
                await asyncio.sleep(0.1)

    def connected(self, ids: Sequence[str]) -> bool:
        """Each of them has one connection; what the agents say of it does not count."""
        self.check()
        return set(ids) <= self.witness.connected().keys()

    def check(self) -> None:
        """No two workers could send for one session, and none lost its pairing."""
        frozen = [
            (pid, it.begun, it.ended)
            for machine in self.agents.values()
            for it in machine.frozen
            for pid in it.pids
        ]
        assert not (overlaps := self.witness.overlaps(frozen)), overlaps
        twice = {id: names for id, names in self.witness.devices().items() if len(names) > 1}
        again = [str(it) for id in twice for it in self.witness.connections(id)]
        assert not twice, f"{', '.join(twice)}: paired again, so a copy was lost: {again}"

    async def owners(self) -> dict[str, str]:
        """Session → machine, as the database has it."""
        rows = await self.rows(
            "SELECT s.id, m.name FROM wa_agent.session s JOIN wa_agent.machine m ON m.id = machine"
        )
        return dict(rows)

    async def copied(self, ids: Sequence[str]) -> bool:
        """Each has a copy in the database, and the copy holds its pairing."""
        coordinator = PostgresCoordinator(self.database.url, TTL, ANSWERS_WITHIN)
        try:
            return all([self._is_paired(await coordinator.stored(id), id) for id in ids])
        finally:
            await coordinator.close()

    def _is_paired(self, stored: Stored | None, id: str) -> bool:
        if stored is None:
            return False
        owned = Owned(id, stored.epoch, "", "", "", {}, "", {})
        return _manifest(open_copy(owned, stored, self.key)).paired

    async def rows(self, statement: str) -> list[Any]:
        async with (
            asyncio.timeout(ANSWERS_WITHIN),
            await psycopg.AsyncConnection.connect(self.database.url) as connection,
        ):
            return await (await connection.execute(statement.encode())).fetchall()

    async def know_each_other(self) -> bool:
        """Every machine has named all others as its rivals."""
        rows = await self.rows("SELECT cardinality(rivals) FROM wa_agent.machine")
        return [n for (n,) in rows] == [len(self.agents) - 1] * len(self.agents)


@asynccontextmanager
async def fleet_of_agents(
    names: Sequence[str],
    place: Path,
    *,
    env: Mapping[str, str] = EMPTY,
    cut: bool = False,
    clocks: Mapping[str, SteppedClock] = MappingProxyType({}),
) -> AsyncIterator[FleetOfAgents]:
    """`env`: settings that differ; `cut`: each machine has a network and a boot clock of its own,
    days apart (as root); `clocks`: wall clocks of machines, and of the database."""
    async with AsyncExitStack() as stack:
        net = stack.enter_context(wires([*names, DATABASE])) if cut else None
        host = net.address(DATABASE) if net else "127.0.0.1"
        port = PORT if net else free_port()
        inside = [*(net.inside(DATABASE) if net else ()), *_clock(clocks, DATABASE)]
        options = ("-c", "max_connections=100", "-c", "fsync=off")
        database = stack.enter_context(
            temporary_postgres(*options, listen=f"{host}:{port}", inside=inside)
        )
        await prepare(database.url)
        database.sql("CREATE ROLE agent LOGIN; GRANT wa_agent_machine TO agent")
        known = {net.address(name): name for name in names} if net else {}
        ahead = {name: number * DAY for number, name in enumerate(names)} if net else {}
        seen = stack.enter_context(witness(net.test if net else "127.0.0.1", known, ahead))
        key = place / "fleet.key"
        key.touch(0o600)
        key.write_bytes(KEY)
        address = f"postgresql://agent@{host}:{port}/whatsapp?sslmode=disable"
        agents = [_machine(name, place / name, address, key, net) for name in names]
        for agent in agents:
            agent.env.update(env)
            if net:
                agent.inside = [*agent.inside, *_boot_clock(ahead[agent.name])]
            agent.inside = [*agent.inside, *_clock(clocks, agent.name)]
        fleet = FleetOfAgents(database, agents, seen, net)
        fleet.newcomer = lambda name: _machine(name, place / name, address, key, net)
        for agent in agents:
            stack.push_async_callback(agent.close)
        await asyncio.gather(*(agent.boot() for agent in agents))
        yield fleet


def _clock(clocks: Mapping[str, SteppedClock], name: str) -> Sequence[str]:
    return clocks[name].command if name in clocks else ()


def _boot_clock(ahead: int) -> list[str]:
    return ["unshare", "--time", "--boottime", str(ahead), "--monotonic", str(ahead), "--"]


def _machine(name: str, place: Path, database: str, key: Path, net: Wires | None) -> FleetAgent:
    place.mkdir(exist_ok=True)
    listen = f"{net.address(name)}:8471" if net else f"127.0.0.1:{free_port()}"
    told = {"database": database, "name": name, "listen": listen, "key_file": str(key)}
    lines = "".join(f'{option} = "{value}"\n' for option, value in told.items())
    config = place / "agent.toml"
    config.write_text(SETTINGS + lines)
    return FleetAgent(name, place, config, net.inside(name) if net else ())


def _manifest(archive: bytes) -> Manifest:
    return read_archive_manifest(io.BytesIO(archive), LIMITS)
