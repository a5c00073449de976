"""Machines of one fleet with two versions of the program: the one before the newest tables, as it
stands in this repository's history, and this one."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from agent.fleet.postgres.schema import prepare
from agent.fleet.postgres.tables import VERSION
from tests.conftest import Eventually
from tests.fleet import agents
from tests.fleet.agents import LASTING, FleetOfAgents, fleet_of_agents
from tests.lacking import lacks

ROOT = Path(__file__).parents[2]
TABLES = "agent/fleet/postgres/tables.py"
IDS = ("s1", "s2", "s3", "s4")
MOVE = 10.0
"""Seconds: a session that moves is stopped, copied, fetched and started, on a busy machine."""


def git(*words: str) -> bytes:
    done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, check=False, timeout=60)
    if done.returncode:
        lacks(f"no history of this repository: {done.stderr.decode().strip()}")
    return done.stdout


def version_of(commit: str) -> int:
    (version,) = re.findall(rb"^VERSION = (\d+)$", git("show", f"{commit}:{TABLES}"), re.M)
    return int(version)


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The newest program that was written for the tables before these."""
    commits = git("log", "--format=%H", "--", TABLES).decode().split()
    found = next((it for it in commits if version_of(it) == VERSION - 1), None)
    if found is None:
        lacks("the history of this repository has no program for the tables before these")
    after = commits[commits.index(found) - 1]
    folder = tmp_path_factory.mktemp("older")
    packed = git("archive", f"{after}^", "agent")
    subprocess.run(["tar", "-x", "-C", folder], input=packed, check=True, timeout=60)
    return folder


def run_as(older: Path) -> list[str]:
    return ["env", f"--chdir={older}", f"PYTHONPATH={older}"]


@pytest.fixture
async def fleet(
    tmp_path: Path, older: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[FleetOfAgents]:
    """Two machines with the program of before, and its tables."""
    code = "import asyncio, sys; from agent.fleet.postgres.schema import prepare; "
    code += "print(asyncio.run(prepare(sys.argv[1])))"

    async def as_before(address: str) -> None:
        words = [*run_as(older), sys.executable, "-c", code, address]
        await asyncio.to_thread(subprocess.run, words, check=True, timeout=60)

    monkeypatch.setattr(agents, "prepare", as_before)
    begin = agents._machine

    def machine(*given: object) -> agents.FleetAgent:
        made = begin(*given)  # type: ignore[arg-type]
        made.inside = run_as(older)
        return made

    monkeypatch.setattr(agents, "_machine", machine)
    async with fleet_of_agents(("m1", "m2"), tmp_path, env=LASTING) as fleet:
        yield fleet


async def moved(fleet: FleetOfAgents, to: str, eventually: Eventually) -> None:
    for id in IDS:

        async def asked(id: str = id) -> bool:
            """Its machine may not be reached for a moment after its agent began."""
            path = f"/api/instance/{id}/move"
            status, said = await fleet[to].answer("POST", path, {"to": to})
            assert status < 300 or said["error"] == "owner_away", (status, said)
            return status < 300

        await eventually(asked, within=30)
    await eventually(fleet.owners, dict.fromkeys(IDS, to), within=60)
    await eventually(lambda: fleet.connected(IDS), within=60)


def pauses(fleet: FleetOfAgents, id: str) -> list[float]:
    """Seconds between two connections of a session."""
    its = fleet.witness.connections(id)
    return [after.begun - before.last for before, after in pairwise(its)]


@pytest.mark.slow
async def test_a_fleet_is_upgraded_machine_by_machine_and_no_session_is_down_longer_than_its_move(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    m1, m2 = fleet["m1"], fleet["m2"]
    await fleet.create(*IDS, on="m1")
    await eventually(lambda: fleet.connected(IDS), within=60)
    await eventually(fleet.know_each_other, within=30)
    await eventually(lambda: fleet.copied(IDS), within=30)

    await m2.do("POST", "/api/fleet/machines/m1/drain")
    await eventually(fleet.owners, dict.fromkeys(IDS, "m2"), within=60)
    await eventually(lambda: fleet.connected(IDS), within=60)
    await m1.stop()
    m1.inside = ()
    await m1.boot()  # upgraded, on the tables of before
    await m2.do("POST", "/api/fleet/machines/m1/undrain")
    await moved(fleet, "m1", eventually)
    await moved(fleet, "m2", eventually)

    before = {id: len(fleet.witness.connections(id)) for id in IDS}
    await eventually(m2.has_just_renewed, within=30)
    await m2.kill()
    m2.inside = ()
    await m2.boot()  # upgraded without a drain: its workers are of the program before
    await eventually(fleet.know_each_other, within=30)
    assert fleet.connected(IDS)
    assert {id: len(fleet.witness.connections(id)) for id in IDS} == before

    assert await prepare(fleet.database.url) == (VERSION - 1, VERSION)
    await moved(fleet, "m1", eventually)
    fleet.check()
    assert {id: len(pauses(fleet, id)) for id in IDS} == dict.fromkeys(IDS, 4)
    assert max(max(pauses(fleet, id)) for id in IDS) < MOVE
