"""A machine that leaves its fleet while the database is slow keeps its sessions."""

from pathlib import Path

import psycopg

from tests.conftest import Eventually
from tests.fleet.agents import fleet_of_agents

_UNDER_WAY = """SELECT count(*) FROM pg_stat_activity
WHERE state = 'active' AND query LIKE '%leave_fleet%' AND pid <> pg_backend_pid()"""


async def test_a_leave_that_was_given_up_takes_no_session_away(
    tmp_path: Path, eventually: Eventually
) -> None:
    """The database ends the call that its machine gave up: nothing of it is done late."""
    async with fleet_of_agents(["a"], tmp_path) as fleet:
        await fleet.create("x", on="a")
        await eventually(lambda: fleet.connected(["x"]), within=30)
        async with (
            await psycopg.AsyncConnection.connect(fleet.database.url) as locked,
            await psycopg.AsyncConnection.connect(fleet.database.url, autocommit=True) as looking,
        ):
            await locked.execute("SELECT * FROM wa_agent.session FOR UPDATE")
            status, _ = await fleet["a"].ask("POST", "/api/fleet/leave")
            assert status == 503

            async def is_over() -> bool:
                row = await (await looking.execute(_UNDER_WAY)).fetchone()
                return row == (0,)

            await eventually(is_over, within=60)
        # No call of before the lock may still change an owner.
        assert await fleet.owners() == {"x": "a"}
        await eventually(lambda: fleet.connected(["x"]), within=30)
        assert "this machine's files went to the trash" not in fleet["a"].log.read_text()
