"""After an older database came back, the agent's own stop is not taken for an operator's."""

import pytest

from agent.core.model import Instance, InstanceId, JournalEntry, Override, SessionRecord
from agent.daemon.state_folder import StateMark, go_on, note_stop, read_mark
from agent.errors import StoreError
from agent.store.database import Store
from agent.supervise.assemble import load_instances
from agent.supervise.registry import Registry
from agent.vault.identity import create
from tests.supervise.test_registry import GATE
from tests.supervise.test_remember import BOOT, STOPPED, operated


async def goes_on(store, state):
    return await go_on(store, state, read_mark(state) or StateMark("new", 0))


async def running_when_copied(state):
    """The database as `.backup` finds it while the sessions run; then the agent stops in order."""
    store = await Store.open(state / "agent.db")
    sales = Instance(InstanceId("sales"), "sandbox", True)
    create(state / "sessions", sales)
    await store.add(
        sales, SessionRecord(seen_run="r1", seen_boot=BOOT), JournalEntry("created", "made")
    )
    assert not await goes_on(store, state)
    await store.copy_to(state / "kept")
    await note_stop(store, state)
    await store.close()


@pytest.mark.parametrize("put_back", [True, False])
async def test_the_agents_own_stop_is_not_an_operators(tmp_path, put_back):
    await running_when_copied(tmp_path)
    if put_back:
        for part in tmp_path.glob("agent.db*"):
            part.unlink()
        (tmp_path / "kept").rename(tmp_path / "agent.db")
    store = await Store.open(tmp_path / "agent.db")
    store.lost = await goes_on(store, tmp_path)
    assert bool(store.lost) is put_back
    registry = Registry(store, GATE, tmp_path / "sessions", boot=BOOT)
    await load_instances(registry, [])
    facts = registry.facts[InstanceId("sales")]
    operated(facts, STOPPED)
    # In the newest one the record says what it says: here nothing of the stop was saved.
    assert facts.record.override is (Override.NONE if put_back else Override.STOPPED)
    assert not await goes_on(store, tmp_path), "once is enough"
    await store.close()


async def test_a_damaged_mark_is_no_reason_not_to_start(tmp_path):
    await running_when_copied(tmp_path)
    (tmp_path / "state-mark.json").write_bytes(b"\xff{")
    store = await Store.open(tmp_path / "agent.db")
    assert not await goes_on(store, tmp_path)
    assert await store.get_fact("state_mark") in (tmp_path / "state-mark.json").read_text()
    await store.close()
    before = read_mark(tmp_path)
    with pytest.raises(StoreError):
        await note_stop(store, tmp_path)
    assert read_mark(tmp_path) == before, "the database is never the older by a write cut off"
