"""An order that the database refuses changes nothing, also once the database takes writes again."""

import sqlite3
from contextlib import closing

import pytest

ORDERS = {
    "delete": ("DELETE", "/api/instance/a", None),
    "restart": ("POST", "/api/instance/a/restart", None),
    "cleanup": ("POST", "/api/instance/a/cleanup", {"confirm": True}),
    "stop": ("POST", "/api/instance/a/stop", None),
    "disable": ("POST", "/api/instance/a/disable", None),
    "start": ("POST", "/api/instance/a/start", None),
}


TABLES = ("instances", "sessions")
REFUSES = "CREATE TRIGGER no_{0} BEFORE UPDATE ON {0} BEGIN SELECT RAISE(ABORT, 'refused'); END;"


def execute(agent, statements):
    with closing(sqlite3.connect(agent.state / "agent.db", timeout=30)) as database:
        database.executescript(statements)


async def looks(agent):
    shown = await agent.show("a")
    same = ("connection_status", "enabled", "override", "paired", "repair")
    return [shown["unit"]["run"], *(shown[key] for key in same)]


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("order", ORDERS)
async def test_an_order_that_cannot_be_written_changes_nothing(
    agent, eventually, caplog, order, killed
):
    await agent.create("a")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    if order == "start":
        await agent.do("POST", "/api/instance/a/stop")
        await eventually(lambda: agent.status("a"), "DISCONNECTED")
    before = await looks(agent)
    execute(agent, "".join(map(REFUSES.format, TABLES)))
    caplog.set_level("INFO")
    caplog.clear()  # its stop may be there already: a test before it may have set the level
    for _ in range(2):
        status, told = await agent.ask(*ORDERS[order])
        assert (status, told["error"]) == (507, "store"), told
    assert "an operator" not in caplog.text
    if killed:
        await agent.kill()
    execute(agent, "".join(f"DROP TRIGGER no_{table};" for table in TABLES))
    if not killed:
        for _ in range(2):
            await agent.do("POST", "/api/instance/a/health")
        assert await looks(agent) == before
        assert (await agent.do("GET", "/api/trash"))["trash"] == []
        await agent.kill()
    await agent.start()
    await eventually(lambda: looks(agent), before)
