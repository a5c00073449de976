"""An instance that the database refuses."""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import AsyncMock, Mock

import pytest

from agent.config.config import Config
from agent.core.model import Instance, InstanceId
from agent.errors import StoreError
from agent.supervise.facts import Settings
from agent.supervise.registry import Registry

GATE = Mock(settings=Settings(Config()))
SHOP = InstanceId("shop")


async def test_what_the_database_refuses_is_not_there_after_the_next_start(tmp_path: Path) -> None:
    store = SimpleNamespace(add=AsyncMock(side_effect=StoreError("the disk is full")))
    registry = Registry(store, GATE, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(StoreError):
        await registry.create(Instance(SHOP, "sandbox", True), "made")
    assert registry.facts == {} and not (tmp_path / SHOP).exists()
