"""The agent with [fleet] beside the same agent without it: what its memory grows by."""

import asyncio
import secrets
from contextlib import AsyncExitStack

from agent.fleet.postgres.schema import prepare
from scripts.benches.machine import this_machine
from scripts.benches.ours import Agent, Client
from scripts.benches.processes import uss
from scripts.benches.report import OURS, Goal, Report, Row
from scripts.benches.site import Site, open_site
from tests.ports import free_port
from tests.standin.postgres import Postgres, temporary_postgres

WITHOUT = "without [fleet]"
MORE_AT_MOST = 8.0
SETTLE, QUICK = 20.0, 6.0
"""Seconds after the last session connected; several renewals and stored copies are among them."""


def measure(instances: int, *, quick: bool = False) -> Report:
    rounds = 1 if quick else 3
    figures: dict[str, list[float]] = {OURS: [], WITHOUT: []}
    for _ in range(rounds):
        found = asyncio.run(_side_by_side(instances, QUICK if quick else SETTLE))
        for name, mib in found.items():
            figures[name].append(mib)
    more = [a - b for a, b in zip(figures[OURS], figures[WITHOUT], strict=True)]
    return Report(
        f"an agent of a fleet, {instances} sessions",
        this_machine(),
        {OURS: "with [fleet]", WITHOUT: "the same agent"},
        [
            Row("the agent's process, USS", "MiB", figures),
            Row("more with [fleet]", "MiB", {OURS: more}, Goal("", MORE_AT_MOST)),
        ],
        ["Both at the same time, with as many sandbox sessions, each copied into the database."],
    )


async def _side_by_side(instances: int, settle: float) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        port = free_port()
        server = stack.enter_context(temporary_postgres(listen=f"127.0.0.1:{port}"))
        await prepare(server.url)
        server.sql("CREATE ROLE agent LOGIN; GRANT wa_agent_machine TO agent")
        sites = {name: stack.enter_context(open_site(instances)) for name in (OURS, WITHOUT)}
        agents = {
            OURS: Agent(sites[OURS], more=_fleet(sites[OURS], port)),
            WITHOUT: Agent(sites[WITHOUT]),
        }
        for agent in agents.values():
            await agent.begin()
            stack.push_async_callback(agent.end)
        await asyncio.gather(*(_connect_all(agent) for agent in agents.values()))
        await _all_copied(server, instances)
        await asyncio.sleep(settle)
        return {name: uss(agent.agent_pid) for name, agent in agents.items()}


async def _connect_all(agent: Agent) -> None:
    async with Client(agent) as client:
        await client.answers()
        await client.create_all()
        await client.all_connected()


async def _all_copied(server: Postgres, instances: int) -> None:
    import psycopg

    async with asyncio.timeout(60), await psycopg.AsyncConnection.connect(server.url) as database:
        while True:
            found = await database.execute("SELECT count(*) FROM wa_agent.copy")
            if (await found.fetchone() or (0,))[0] == instances:
                return
            await database.commit()
            await asyncio.sleep(0.2)


def _fleet(site: Site, port: int) -> str:
    key = site.place / "fleet.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(32))
    told = {
        "database": f"postgresql://agent@127.0.0.1:{port}/whatsapp",
        "name": "m1",
        "listen": f"127.0.0.1:{free_port()}",
        "key_file": str(key),
    }
    return "\n[fleet]\n" + "".join(f'{name} = "{value}"\n' for name, value in told.items())
