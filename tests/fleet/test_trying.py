"""scripts/run --fleet: agents and members of etcd on this machine, which all end together."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agent.fleet import trying
from tests.conftest import Eventually
from tests.daemon.conftest import AgentClient, cli, workers_in
from tests.fleet.members import needs_etcd
from tests.waiting import alive


@pytest.mark.slow
async def test_a_fleet_on_one_machine_ends_as_a_whole(eventually: Eventually) -> None:
    needs_etcd()
    assert trying.main(["1"]) == 2
    command = (sys.executable, "-m", "agent.fleet.trying", "2")
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    said = ""
    while "Stop:" not in said:
        said += (await process.stdout.readline()).decode()
    pids = [int(it) for it in re.findall(r"kill -9 (\d+)", said)]
    root = Path(re.search(r"Logs: +(\S+)", said)[1])

    async def connected() -> bool:
        return "CONNECTED" in (await cli(AgentClient(root / "b"), "list"))[1].split()

    try:
        await eventually(connected)
        pids += [pid for it in root.glob("?/run*") for pid in workers_in(it).values()]
    finally:
        process.terminate()
        assert await process.wait() == 0
    assert (len(pids) > 4, [*filter(alive, pids)], root.exists()) == (True, [], False)
