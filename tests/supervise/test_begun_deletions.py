"""A deletion that a killed agent had begun, while its worker cannot be stopped."""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import AsyncMock, Mock

import pytest

from agent.core.model import Instance, InstanceId
from agent.errors import HostError, StoreError
from agent.store.database import Store
from agent.supervise.registry import Registry
from agent.supervise.requests import deletion
from agent.supervise.requests.deletion import Deletion
from agent.supervise.snapshots import Snapshots
from agent.supervise.story import DELETING
from agent.vault.trash import list_trash
from tests.supervise.test_published import GATE

SHOP = InstanceId("shop")


class Host(SimpleNamespace):
    """It stops a worker when it is asked for the third time."""

    asked = 0

    async def stop(self, id: InstanceId) -> None:
        self.asked += 1
        if self.asked < 3:
            raise HostError(f"cannot stop {id}: systemd does not answer")

    def boot_id(self) -> str:
        return "this boot"


async def test_it_is_tried_again_until_the_worker_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "FINISH_AGAIN", 0.01)
    store, sessions = await Store.open(tmp_path / "agent.db"), tmp_path / "sessions"
    registry, host = Registry(store, GATE, sessions), Host()
    try:
        await registry.create(Instance(SHOP, "sandbox", True), "made")
        await store.put_facts({DELETING + SHOP: ""})
        await Deletion(
            registry=registry,
            store=store,
            host=host,
            keeping=Snapshots(registry, store, host, sessions, GATE.settings, Mock()),
            session_root=sessions,
            wake=Mock(),
            forget=Mock(),
            let_go=Mock(),
        ).finish_deletions()
        assert host.asked == 3
        assert (registry.facts, await store.get_facts(DELETING)) == ({}, {})
        assert [retired.id for retired in list_trash(sessions)] == [SHOP]
    finally:
        await store.close()


async def test_what_the_database_refuses_is_not_there_after_the_next_start(tmp_path: Path) -> None:
    store = SimpleNamespace(add=AsyncMock(side_effect=StoreError("the disk is full")))
    registry = Registry(store, GATE, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(StoreError):
        await registry.create(Instance(SHOP, "sandbox", True), "made")
    assert registry.facts == {} and not (tmp_path / SHOP).exists()
