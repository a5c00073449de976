"""`wa-agent import` of several sessions into a running agent."""

from collections.abc import Callable
from pathlib import Path

from tests.daemon.conftest import RunningAgent, make_agent
from tests.daemon.test_vault import cli
from tests.moving.conftest import creds, keys_of, write_folder

__all__ = ["make_agent"]


async def test_several_sessions_become_instances_that_wait_to_be_enabled(
    make_agent: Callable[..., RunningAgent], tmp_path: Path
) -> None:
    write_folder(tmp_path / "bots" / "sales", keys_of())
    write_folder(tmp_path / "bots" / "Help Desk", keys_of(creds(me={"id": "5511880000000:1@x"})))
    write_folder(tmp_path / "bots" / "deaf", keys_of(pre_keys=0))
    agent = make_agent()
    await agent.start()
    status, out = await cli(agent, "import", str(tmp_path / "bots"), "--all")
    assert (status, out.count("imported"), out.count("refused")) == (4, 2, 1), out
    for id, account in (("sales", "5511900000001"), ("help-desk", "5511880000000")):
        shown = await agent.show(id)
        assert (shown["engine"], shown["should_run"], shown["paired"]) == ("baileys", False, True)
        assert shown["account"] in (account, ""), shown
    assert not await agent.knows("deaf")
    status, out = await cli(agent, "import", str(tmp_path / "bots"), "shop", "--only", "sales")
    assert (status, out.splitlines()[0]) == (0, "shop imported, disabled"), out
    again, out = await cli(agent, "import", str(tmp_path / "bots" / "sales"))
    assert (again, "exists" in out) == (4, True), out
