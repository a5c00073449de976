"""A deletion that a killed agent had begun, while the fleet's database is away."""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from agent.core.model import Instance, InstanceId
from agent.errors import TryLater
from agent.store.database import Store
from agent.supervise.registry import Registry
from agent.supervise.requests import deletion
from agent.supervise.requests.deletion import Deletion
from agent.supervise.story import DELETING
from agent.vault.trash import list_trash
from tests.supervise.test_show import SOURCES

SHOP = InstanceId("shop")


class Host(SimpleNamespace):
    async def stop(self, _id: InstanceId) -> None:
        self.stopped = True

    def boot_id(self) -> str:
        return "this boot"


class Owner(SimpleNamespace):
    """Its database answers from the third question on."""

    asked = 0

    def refuse_unreachable(self) -> None:
        self.asked += 1
        if self.asked < 3:
            raise TryLater("the database does not answer", code="fleet_database")

    async def delete(self, id: InstanceId) -> None:
        self.deleted = id


async def test_it_is_tried_again_until_the_database_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "FINISH_AGAIN", 0.01)
    store, sessions = await Store.open(tmp_path / "agent.db"), tmp_path / "sessions"
    registry, host, owner = Registry(store, SOURCES, sessions), Host(), Owner()
    try:
        await registry.create(Instance(SHOP, "sandbox", True), "made")
        registry.tenure.owner = owner
        await store.put_facts({DELETING + SHOP: ""})
        await Deletion(
            registry=registry,
            store=store,
            host=host,
            session_root=sessions,
            wake=Mock(),
            forget=Mock(),
            let_go=Mock(),
        ).finish_deletions()
        assert (owner.asked, owner.deleted, host.stopped) == (3, SHOP, True)
        assert (registry.facts, await store.get_facts(DELETING)) == ({}, {})
        assert [retired.id for retired in list_trash(sessions)] == [SHOP]
    finally:
        await store.close()
