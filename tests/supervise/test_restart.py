"""An order to restart a session that no pass has looked at yet: right after the agent's start."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from agent.core.model import UNIT_ABSENT, Instance, InstanceId, Override, UnitState, UnitStatus
from agent.store.database import Store
from agent.supervise.registry import Registry
from agent.supervise.requests.orders import Orders
from tests.supervise.test_show import SOURCES

SHOP = InstanceId("shop")


class Host(SimpleNamespace):
    async def status(self, _id: InstanceId) -> UnitStatus:
        unit: UnitStatus = self.unit
        return unit

    def boot_id(self) -> str:
        return "this boot"


@pytest.mark.parametrize(
    ("unit", "restart_of"),
    [
        pytest.param(UnitStatus(UnitState.ACTIVE, run="run 7"), "run 7", id="its worker runs"),
        pytest.param(UNIT_ABSENT, "", id="it has none"),
    ],
)
async def test_a_restart_before_the_first_look_is_of_the_worker_that_runs(
    tmp_path: Path, unit: UnitStatus, restart_of: str
) -> None:
    store = await Store.open(tmp_path / "agent.db")
    registry = Registry(store, SOURCES, tmp_path / "sessions")
    facts = await registry.create(Instance(SHOP, "sandbox", True), "made")
    room: Any = SimpleNamespace(wait_reason=lambda _facts: "")
    orders = Orders(registry, Host(unit=unit), room, Mock(), Mock())
    try:
        await orders.restart(SHOP)
    finally:
        await store.close()
    assert facts.record.restart_of == restart_of
    assert facts.asked.start == (not restart_of)
    assert facts.record.override is Override.NONE
