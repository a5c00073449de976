"""After an older database came back, the agent's own stop is not taken for an operator's."""

import pytest

from agent.core.model import Instance, InstanceId, JournalEntry, Override, SessionRecord
from agent.daemon.state_folder import StatePlaces, go_on, note_stop
from agent.store.database import Store
from agent.supervise.registry import Registry
from agent.supervise.start_up import load_instances
from agent.vault.identity import create
from tests.supervise.test_remember import BOOT, STOPPED, recorder


@pytest.fixture
def places(tmp_path):
    return StatePlaces(tmp_path, tmp_path / "sessions", tmp_path / "cache")


async def running_when_copied(places):
    """The database as `.backup` finds it while the sessions run; then the agent stops in order."""
    store = await Store.open(places.state / "agent.db")
    sales = Instance(InstanceId("sales"), "sandbox", True)
    create(places.sessions, sales)
    await store.add(
        sales, SessionRecord(seen_run="r1", seen_boot=BOOT), JournalEntry("created", "made")
    )
    assert not await go_on(store, places, rebuilt=False)
    await store.copy_to(places.state / "kept")
    await note_stop(store, places)
    await store.close()


@pytest.mark.parametrize("put_back", [True, False])
async def test_the_agents_own_stop_is_not_an_operators(places, put_back):
    await running_when_copied(places)
    if put_back:
        for part in places.state.glob("agent.db*"):
            part.unlink()
        (places.state / "kept").rename(places.state / "agent.db")
    store = await Store.open(places.state / "agent.db")
    older = await go_on(store, places, rebuilt=False)
    assert older is put_back
    registry = Registry(store, None, places.sessions)
    await load_instances(registry, store, places.sessions, [], older=older)
    facts = registry.facts[InstanceId("sales")]
    recorder().note_operator(facts, STOPPED)
    # In the newest one the record says what it says: here nothing of the stop was saved.
    assert facts.record.override is (Override.NONE if put_back else Override.STOPPED)
    assert not await go_on(store, places, rebuilt=False), "once is enough"
    await store.close()


async def test_a_damaged_mark_is_no_reason_not_to_start(places):
    await running_when_copied(places)
    (places.state / "state-mark.json").write_bytes(b"\xff{")
    store = await Store.open(places.state / "agent.db")
    assert not await go_on(store, places, rebuilt=False)
    assert await store.get_fact("state_mark") in (places.state / "state-mark.json").read_text()
    await store.close()
