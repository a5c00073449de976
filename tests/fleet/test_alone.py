"""An agent without [fleet] is what it was."""

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
