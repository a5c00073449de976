"""Orders of an operator reach the fleet's database, and are sent again until they do."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from agent.core.model import Instance, InstanceId, Override, SessionRecord
from agent.errors import TryLater
from agent.fleet.coordinator import Owned
from agent.supervise.fleet.orders import Orders

SHOP = InstanceId("shop")
BOOT = "this boot"


class Database:
    def __init__(self) -> None:
        self.away = False
        self.told: list[tuple[int, str]] = []

    async def update(
        self, _member: object, _id: str, epoch: int, *, wanted: str, settings: object
    ) -> bool:
        if self.away:
            raise TryLater("cannot reach the fleet's database")
        self.told.append((epoch, wanted))
        return True


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def orders(database: Database) -> Orders:
    fleet: Any = SimpleNamespace(coordinator=database, keeper=SimpleNamespace(member=None))
    owned = Owned(SHOP, 0, "sandbox", "running", "newest", {}, "", {})
    ownership: Any = SimpleNamespace(owned={SHOP: owned})
    ownership.mine = lambda id: ownership.owned.get(id)  # noqa: PLW0108 - tests replace it
    return Orders(fleet, ownership, BOOT)


def session(*, stopped: bool) -> Any:
    override = Override.STOPPED if stopped else Override.NONE
    record = SessionRecord(override=override, override_boot=BOOT if stopped else "")
    return SimpleNamespace(id=SHOP, instance=Instance(SHOP, "sandbox", True), record=record)


async def test_an_order_is_written_once(orders: Orders, database: Database) -> None:
    await orders.write_all([session(stopped=False)])
    assert database.told == [], "the database has it"
    for _ in range(2):
        await orders.write(session(stopped=True))
        await orders.write_all([session(stopped=True)])
    assert database.told == [(0, "stopped")]


async def test_an_order_that_the_database_did_not_take_is_written_later(
    orders: Orders, database: Database
) -> None:
    await orders.write_all([session(stopped=False)])
    database.away = True
    await orders.write(session(stopped=True))
    database.away = False
    await orders.write_all([session(stopped=True)])
    assert database.told == [(0, "stopped")]


async def test_in_another_epoch_it_counts_what_the_database_says_then(
    orders: Orders, database: Database
) -> None:
    """It was on another machine meanwhile, where it was stopped."""
    await orders.write_all([session(stopped=False)])
    away = replace(orders.ownership.owned[SHOP], epoch=2, wanted="stopped")
    orders.ownership.owned = {SHOP: away}
    await orders.write_all([session(stopped=True)])
    assert database.told == []
    await orders.write_all([session(stopped=False)])
    assert database.told == [(2, "running")]
