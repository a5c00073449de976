"""An agent without [fleet] is what it was."""

import asyncio
import subprocess
import sys
from pathlib import Path

from tests.daemon.conftest import RunningAgent

OF_A_FLEET = ("psycopg", "agent.fleet", "agent.supervise.fleet", "agent.api.fleet", "nacl")


async def test_an_agent_without_fleet_imports_nothing_of_it(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text('[agent]\nhost = "process"\n')
    agent = RunningAgent(tmp_path / "state", config)
    try:
        await agent.start({"PYTHONPROFILEIMPORTTIME": "1"})
        await agent.create("shop")
    finally:
        await agent.close()
    lines = [it for it in agent.log.read_text().splitlines() if it.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip() for line in lines}
    assert "agent.daemon.main" in imported
    assert [it for it in imported if it.startswith(OF_A_FLEET)] == []


def test_an_agent_of_a_fleet_loads_what_it_uses():
    """Nothing for browser profiles, nor to make tables; psycopg's libpq needs no ctypes."""
    unused = ("agent.fleet.copies.restic", "agent.fleet.postgres.schema", "_ctypes")
    program = (
        "import sys\n"
        "import agent.fleet.fleet, agent.supervise.fleet.assemble, agent.supervise.fleet.joining\n"
        f"print('psycopg' in sys.modules, [it for it in {unused} if it in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert done.stdout == "True []\n", done.stderr


async def test_a_fleet_without_its_client_of_postgresql_is_refused(tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError('no psycopg here')\n")
    config = tmp_path / "agent.toml"
    config.write_text(
        '[agent]\nhost = "process"\n[fleet]\ndatabase = "postgresql://a@127.0.0.1/x"\n'
        'listen = "127.0.0.1:0"\naddress = "http://127.0.0.1:1"\n'
    )
    agent = RunningAgent(tmp_path / "state", config)
    try:
        await agent.start({"PYTHONPATH": f"{tmp_path}"}, ready=False)
        assert agent.process is not None
        assert await asyncio.wait_for(agent.process.wait(), 30) == 78
    finally:
        await agent.close()
    assert "no psycopg here; `scripts/install --with fleet` brings what is missing" in (
        agent.log.read_text()
    )
