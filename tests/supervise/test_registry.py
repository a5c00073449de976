"""An instance that the database refuses."""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import AsyncMock, Mock

import pytest

from agent.config.config import Config
from agent.core.model import Instance, InstanceId, SessionRecord
from agent.core.recovery.repair import Consent, Goal, Repair, Trouble
from agent.errors import StoreError, VaultError
from agent.supervise.facts import Settings
from agent.supervise.registry import Registry

GATE = Mock(settings=Settings(Config()))
SHOP = InstanceId("shop")


@pytest.mark.parametrize("full", ["", "vault.folders.retire", "vault.identity.replace_identity"])
async def test_what_the_database_or_disk_refuses_is_not_there_after_the_next_start(
    full: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`full`: what has no room either."""
    if full:
        monkeypatch.setattr(f"agent.{full}", Mock(side_effect=VaultError("full")))
    store = SimpleNamespace(add=AsyncMock(side_effect=StoreError("the disk is full")))
    registry = Registry(store, GATE, tmp_path)  # type: ignore[arg-type]
    with pytest.raises((StoreError, VaultError)):
        await registry.create(Instance(SHOP, "sandbox", True), "made")
    assert registry.facts == {} and not (tmp_path / SHOP).exists()


async def test_an_order_that_lapsed_with_the_last_agent_stands_in_the_journal() -> None:
    asked = Repair(Trouble.CONNECTION, "zombie", Goal.CLEANUP, 0.0, Consent.PAIRING)
    registry = Registry(Mock(), GATE, Path())
    [said] = registry.add(Instance(SHOP, "sandbox", True), SessionRecord(repair=asked)).unsaid
    assert "order (cleanup) had not begun" in said.sentence
