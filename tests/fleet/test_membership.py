"""A machine with sessions joins a fleet and leaves it again; nothing starts blindly in between."""

import asyncio
import contextlib
import json
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.conftest import Eventually
from tests.fleet.agents import FleetAgent, FleetOfAgents, fleet_of_agents


async def test_a_machine_joins_with_its_sessions_and_leaves_with_them(
    tmp_path: Path, eventually: Eventually
) -> None:
    ids = ["x", "y"]
    async with fleet_of_agents(["a"], tmp_path) as fleet, newcomer(fleet, "c") as c:
        # Drained, it takes no session over while "c" runs without the fleet.
        await fleet["a"].do("POST", "/api/fleet/machines/a/drain")
        await start(c, fleet=False)
        for id in ids:
            await c.create(id, **fleet.settings)
        await eventually(lambda: fleet.connected(ids), within=20)
        await c.stop()

        await start(c, fleet=True)
        await eventually(lambda: fleet.connected(ids), within=30)
        assert await fleet.owners() == {"x": "c", "y": "c"}
        assert leased(c, "x")
        await refuses_a_second_owner(fleet, eventually)
        await c.stop()

        await start(c, fleet=False)
        await eventually(lambda: waits_for_its_lease(c, "x"))
        assert "put [fleet] back" in c.log.read_text().lower()
        await released(c, "y")
        await eventually(lambda: fleet.connected(["y"]), within=20)
        assert await waits_for_its_lease(c, "x")
        await c.stop()

        await start(c, fleet=True)
        await eventually(lambda: fleet.connected(ids), within=30)
        before = fleet.witness.connected()
        await c.do("POST", "/api/fleet/leave")
        assert await fleet.owners() == {}
        assert not leased(c, "x")
        assert fleet.witness.connected() == before
        await c.stop()

        await start(c, fleet=False)
        await eventually(lambda: fleet.connected(ids), within=20)


async def refuses_a_second_owner(fleet: FleetOfAgents, eventually: Eventually) -> None:
    """All of its sessions join or none; its workers go on as they were."""
    async with newcomer(fleet, "d") as d:
        await start(d, fleet=False)
        await d.create("x", scan="manual")
        await d.create("other", scan="manual")
        await d.stop()
        await eventually(lambda: end_with_the_fleet(d), 78, within=90)
        assert "other machines of it have sessions named x" in d.log.read_text()
        assert await fleet.owners() == {"x": "c", "y": "c"}
        await start(d, fleet=False)
        assert sorted(it["id"] for it in await listed(d)) == ["other", "x"]


async def end_with_the_fleet(agent: FleetAgent) -> int:
    """75: the database was too slow for it at that moment."""
    await start(agent, fleet=True, ready=False)
    assert agent.process is not None
    return await asyncio.wait_for(agent.process.wait(), 60)


@asynccontextmanager
async def newcomer(fleet: FleetOfAgents, name: str) -> AsyncIterator[FleetAgent]:
    agent = fleet.newcomer(name)
    try:
        yield agent
    finally:
        await agent.close()


async def start(agent: FleetAgent, *, fleet: bool, ready: bool = True) -> None:
    whole = agent.config.with_suffix(".whole")
    if not whole.exists():
        whole.write_text(agent.config.read_text())
    text = whole.read_text()
    agent.config.write_text(text if fleet else text.partition("[fleet]")[0])
    await agent.start(ready=ready)


def leased(agent: FleetAgent, id: str) -> bool:
    file = agent.state / "sessions" / id / "instance.json"
    return bool(json.loads(file.read_text())["leased"])


async def listed(agent: FleetAgent) -> list[dict[str, str]]:
    return list((await agent.do("GET", "/api/instances"))["instances"])


async def waits_for_its_lease(agent: FleetAgent, id: str) -> bool:
    view = await agent.do("GET", f"/api/instance/{id}")
    return "no_lease" in json.dumps(view)


async def released(agent: FleetAgent, id: str) -> None:
    """For an operator whose fleet is gone for good; never by a slip."""
    path = f"/api/instance/{id}/release"
    assert (await agent.ask("POST", path, {"confirm": "x"}))[0] == 400
    await agent.do("POST", path, {"confirm": id})
    assert not leased(agent, id)
    assert "not_leased" in str(await agent.ask("POST", path, {"confirm": id}))


AT_THE_SAME_PATH = """
import os, subprocess, sys
copy, original, *command = sys.argv[1:]
subprocess.run(["mount", "--bind", copy, original], check=True)
os.execvp(command[0], [original if it == copy else it for it in command])
"""
IN_A_CONTAINER = """
import os, signal, subprocess, sys
options = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
outside = subprocess.Popen(["unshare", *options, *sys.argv[1:]])
def pass_on(number, _frame):
    with open(f"/proc/{outside.pid}/task/{outside.pid}/children") as children:
        os.kill(int(children.read()), number)
signal.signal(signal.SIGTERM, pass_on)
sys.exit(outside.wait())
"""
"""A cloned container on one host: its own files under the same path, in the same boot, and none of
the host's other processes. Where the original's can be seen, the copy does not start at all."""


async def test_a_copy_of_a_machine_runs_none_of_its_sessions(
    tmp_path: Path, eventually: Eventually
) -> None:
    async with fleet_of_agents(["a"], tmp_path) as fleet:
        await fleet.create("x", on="a")
        await eventually(lambda: fleet.connected(["x"]), within=30)
        # Its pairing is written down: its files rest while they are copied.
        await eventually(lambda: is_paired(fleet["a"], "x"))
        await eventually(lambda: fleet.copied(["x"]))
        async with newcomer(fleet, "copy") as copy:
            copied = ("agent.db", "fleet.json", "sessions", "state-mark.json")
            await asyncio.to_thread(clone, fleet["a"].state, copy.state, copied)
            paths = (str(copy.state), str(fleet["a"].state))
            container = (sys.executable, "-c", IN_A_CONTAINER)
            copy.inside = [*container, sys.executable, "-c", AT_THE_SAME_PATH, *paths]
            await copy.start()
            await eventually(lambda: says_it_is_a_copy(copy), within=20)
            assert copy.worker_pids() == []
            fleet.check()
            # The original stays the machine, whichever was asked last.
            assert not await says_it_is_a_copy(fleet["a"])


def clone(source: Path, target: Path, names: tuple[str, ...]) -> None:
    target.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(source / "agent.db")) as database:
        database.execute("VACUUM INTO ?", [str(target / "agent.db")])
    for name in names[1:]:
        whole = source / name
        copy = shutil.copytree if whole.is_dir() else shutil.copy2
        copy(whole, target / name)


async def is_paired(agent: FleetAgent, id: str) -> bool:
    """Its agent knows it: a moment after the connection was made."""
    return bool((await agent.show(id))["paired"])


async def says_it_is_a_copy(agent: FleetAgent) -> bool:
    return "identity of this machine" in (await agent.fleet())["database"]["error"]


async def test_a_declared_instance_is_made_where_no_machine_has_it(
    tmp_path: Path, eventually: Eventually
) -> None:
    async with fleet_of_agents(["a"], tmp_path) as fleet:
        await fleet.create("x", on="a")
        async with newcomer(fleet, "c") as c:
            with c.config.open("a") as file:
                for id in ("x", "z"):
                    file.write(f'[[instance]]\nid = "{id}"\nengine = "sandbox"\n')
            await c.start()
            await eventually(lambda: has_owners(fleet, {"x": "a", "z": "c"}), within=30)
            made = c.state / "sessions/z/instance.json"
            await eventually(made.exists)
            assert not (c.state / "sessions/x").exists()


async def has_owners(fleet: FleetOfAgents, owners: dict[str, str]) -> bool:
    return await fleet.owners() == owners


async def test_an_agent_that_starts_without_the_database_starts_no_session(
    tmp_path: Path, eventually: Eventually
) -> None:
    async with fleet_of_agents(["a"], tmp_path) as fleet:
        a = fleet["a"]
        await fleet.create("x", on="a")
        await eventually(lambda: fleet.connected(["x"]), within=30)
        await a.lose_power()
        fleet.database.kill()
        await a.boot()
        await eventually(lambda: holds(a), within=20)  # it is alone
        await eventually(lambda: reaches_the_database(a), False)
        await eventually(lambda: "x" not in fleet.witness.connected(), within=20)
        await eventually(lambda: waits_for_its_lease(a, "x"))
        fleet.database.begin()
        await eventually(lambda: fleet.connected(["x"]), within=60)


async def reaches_the_database(agent: FleetAgent) -> bool:
    return bool((await agent.fleet())["database"]["reachable"])


async def holds(agent: FleetAgent) -> bool:
    return bool((await agent.fleet())["lease"]["holds"])
