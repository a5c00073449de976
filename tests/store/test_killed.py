"""kill -9 at a commit: what was acknowledged is there, and nothing is torn."""

import pytest

from agent.core.model import InstanceId

WRITE = """
import asyncio, os, sys
from pathlib import Path
from agent.core.model import Instance, InstanceId, JournalEntry, SessionRecord
from agent.store.database import Store

async def write(store, id):
    number = 0
    while True:
        number += 1
        record = SessionRecord(attempts=number)
        entry = JournalEntry(str(number), "x" * 50, instance=id)
        await store.save(Instance(id, "sandbox", True), record, entry)
        # One write call per line: a pipe takes it whole or not at all.
        os.write(1, f"{id} {number}\\n".encode())

async def main():
    store = await Store.open(Path(sys.argv[1]))
    ids = [InstanceId(f"i{n}") for n in range(5)]
    for id in ids:
        await store.add(Instance(id, "sandbox", True), SessionRecord(), JournalEntry("0", "made"))
    async with asyncio.TaskGroup() as group:
        for id in ids:
            group.create_task(write(store, id))

asyncio.run(main())
"""


@pytest.mark.parametrize("nth", [8, 60])
@pytest.mark.parametrize("point", ["before_commit", "after_commit"])
async def test_killed_at_a_commit(path, run_child, open_store, point, nth):
    acknowledged = run_child(WRITE, path, failpoint=f"{point}:kill:{nth}")
    last = {id: int(number) for id, number in map(str.split, acknowledged)}
    assert last or nth < 10
    store = await open_store(path)
    assert store.rebuilt_from == ()
    assert await store.check() == "ok"
    for instance, record in await store.instances():
        assert record.attempts >= last.get(instance.id, 0), "acknowledged and lost"
        newest = await store.history(InstanceId(instance.id), limit=1)
        told = int(newest[0].kind) if newest else 0
        assert told == record.attempts, "a change without its entry, or an entry without its change"
