"""The outbox: what is accepted is sent once, over drops and deletions."""

import sqlite3
from contextlib import closing

from tests.world.sending import ID, OUTBOX, connected, goes_away, heard, say


async def test_a_damaged_row_holds_up_no_other_message(agent, eventually):
    await connected(agent, eventually)
    await goes_away(agent, eventually)
    ids = [await say(agent, f"number {n}") for n in range(4)]
    await agent.stop()
    hurts = ("state = 'accupted'", "content = '{'", "lane = cast(x'ff' as text)")
    with closing(sqlite3.connect(agent.state / "outbox.db", isolation_level=None)) as db:
        for number, hurt in enumerate(hurts, 1):
            db.execute(f"update messages set {hurt} where number = {number}")
    await agent.start()
    await agent.fault(ID, "clear")
    await eventually(lambda: heard(agent, "number 3"), ["number 3"])
    shown = (await agent.do("GET", OUTBOX))["messages"]
    assert [each["state"] for each in reversed(shown)][:2] == ["unknown", "failed"]
    assert [each["id"] for each in reversed(shown)] == ids
