"""A machine that leaves its fleet while the database is slow keeps its sessions."""

from pathlib import Path

import psycopg

from tests.conftest import Eventually
from tests.fleet.agents import fleet_of_agents


async def test_a_leave_whose_answer_comes_late_takes_no_session_away(
    tmp_path: Path, eventually: Eventually
) -> None:
    async with fleet_of_agents(["a"], tmp_path) as fleet:
        await fleet.create("x", on="a")
        await eventually(lambda: fleet.connected(["x"]), within=30)
        async with await psycopg.AsyncConnection.connect(fleet.database.url) as locked:
            await locked.execute("SELECT * FROM wa_agent.session FOR UPDATE")
            status, _ = await fleet["a"].ask("POST", "/api/fleet/leave")
            assert status == 503

        async def is_its_own_again() -> bool:
            log = fleet["a"].log.read_text()
            assert "this machine's files went to the trash" not in log
            again = "the fleet's database had lost this session; it is there again" in log
            return again and await fleet.owners() == {"x": "a"}

        await eventually(is_its_own_again, within=40)
        await eventually(lambda: fleet.connected(["x"]), within=30)
