"""The agent with [fleet] beside the same agent without it: what its memory grows by.

Nothing here imports psycopg: a page that this process shares with the agent would be missing in
what the agent has for itself.
"""

import asyncio
import contextlib
import json
import secrets
import shutil
import subprocess
import sys
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path

from scripts.benches.fleet_imports import CONNECTIONS
from scripts.benches.machine import this_machine
from scripts.benches.ours import Agent, Client
from scripts.benches.processes import MIB, memory, uss
from scripts.benches.report import OURS, Goal, Report, Row
from scripts.benches.rounds import Figures
from scripts.benches.site import Site, open_site
from tests.ports import free_port
from tests.standin.postgres import Postgres, temporary_postgres

WITHOUT = "without [fleet]"
MORE_AT_MOST = 8.0
JUDGED = "RSS"
SETTLE, QUICK = 20.0, 6.0
"""Seconds after the last session connected; several renewals and stored copies are among them."""
WITHIN = 60.0
SHARING = "other processes with psycopg's files open"


def measure(instances: int, *, quick: bool = False) -> Report:
    found: dict[str, Figures] = defaultdict(lambda: defaultdict(list))
    parts = Figures(list)
    for _ in range(1 if quick else 3):
        agents, added = asyncio.run(_side_by_side(instances, QUICK if quick else SETTLE))
        for name, kinds in agents.items():
            for kind, mib in kinds.items():
                found[kind][name].append(mib)
        for part, mib in added.items():
            parts[part].append(mib)
    rows = [Row(f"the agent's process, {kind}", "MiB", by_name) for kind, by_name in found.items()]
    for kind, by_name in found.items():
        more = [a - b for a, b in zip(by_name[OURS], by_name[WITHOUT], strict=True)]
        goal = Goal("", MORE_AT_MOST) if kind == JUDGED else None
        rows.append(Row(f"more with [fleet], {kind}", "MiB", {OURS: more}, goal))
    return Report(
        f"an agent of a fleet, {instances} sessions",
        this_machine(),
        {OURS: "with [fleet]", WITHOUT: "the same agent"},
        [
            *rows,
            *(
                Row(part, "" if part == SHARING else "MiB", {OURS: runs})
                for part, runs in parts.items()
            ),
        ],
        [
            "Both at the same time, with as many sandbox sessions, each copied into the database.",
            f"Judged is {JUDGED}, which ps and top show: it does not depend on what other"
            " processes share.",
            "PSS and USS hold psycopg's pages only where no other process has its files open.",
            "Imports and connections were measured in a Python of their own, after the imports of"
            " an agent without [fleet].",
        ],
    )


async def _side_by_side(
    instances: int, settle: float
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Each agent's memory by kind, and what the parts of a fleet's agent add."""
    async with AsyncExitStack() as stack:
        port = free_port()
        server = stack.enter_context(temporary_postgres(listen=f"127.0.0.1:{port}"))
        sites = {name: stack.enter_context(open_site(instances)) for name in (OURS, WITHOUT)}
        _prepare(server, sites[OURS])
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
        found = {name: _kinds(agent.agent_pid) for name, agent in agents.items()}
        sharing = {SHARING: _sharing(agents[OURS].agent_pid)}
        return found, sharing | await _parts(server, sites[OURS], port)


def _kinds(pid: int) -> dict[str, float]:
    found = memory(pid)
    return {"RSS": found["Rss"] / MIB, "PSS": found["Pss"] / MIB, "USS": uss(pid)}


def _sharing(pid: int) -> float:
    """How many other processes have a file open that it has of psycopg."""
    own = _files_of_psycopg(Path(f"/proc/{pid}/maps"))
    found = [_files_of_psycopg(maps) for maps in Path("/proc").glob("[0-9]*/maps")]
    return float(sum(not own.isdisjoint(files) for files in found) - 1)


def _files_of_psycopg(maps: Path) -> set[str]:
    with contextlib.suppress(OSError):
        words = maps.read_text(errors="replace").split()
        return {word for word in words if "/psycopg" in word}
    return set()


def _prepare(server: Postgres, site: Site) -> None:
    """In a process that has ended before anything is measured."""
    program = Path(sys.executable).parent / "wa-agent"
    command = [program, "fleet", "database", "prepare", "--address-file", "-"]
    env = site.environment()
    subprocess.run(command, input=server.url, text=True, check=True, capture_output=True, env=env)
    server.sql("CREATE ROLE agent LOGIN; GRANT wa_agent_machine TO agent")


async def _connect_all(agent: Agent) -> None:
    async with Client(agent) as client:
        await client.answers()
        await client.create_all()
        await client.all_connected()


async def _all_copied(server: Postgres, instances: int) -> None:
    async with asyncio.timeout(WITHIN):
        while True:
            if int(server.sql("SELECT count(*) FROM wa_agent.copy")) == instances:
                return
            await asyncio.sleep(0.2)


async def _parts(server: Postgres, site: Site, port: int) -> dict[str, float]:
    """After the agents: from here on another process has psycopg's files open."""
    address = f"postgresql://agent@localhost:{port}/whatsapp?hostaddr=127.0.0.1&sslmode="
    found = _added(address + "disable")
    certificate = await _offer_tls(server, site)
    over_tls = _added(f"{address}verify-full&sslrootcert={certificate}")
    return found | {f"{CONNECTIONS} with TLS": over_tls[CONNECTIONS]}


async def _offer_tls(server: Postgres, site: Site) -> Path:
    """The certificate with which the server encrypts from now on."""
    trusted = _certify(server, site)
    server.sql("ALTER SYSTEM SET ssl = on")
    server.sql("SELECT pg_reload_conf()")
    async with asyncio.timeout(WITHIN):
        while True:
            if server.sql("SHOW ssl").strip() == "on":
                return trusted
            await asyncio.sleep(0.2)


def _certify(server: Postgres, site: Site) -> Path:
    data, trusted = server.folder / "data", site.place / "server.crt"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    named = ["-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", data / "server.key", "-out", data / "server.crt"]
    subprocess.run([*make, *named, *files], check=True, capture_output=True)
    shutil.copy(data / "server.crt", trusted)
    for name in ("server.key", "server.crt"):
        shutil.chown(data / name, data.owner(), data.group())
    return trusted


def _added(address: str) -> dict[str, float]:
    command = [sys.executable, "-m", "scripts.benches.fleet_imports", address]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


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
