"""What agent.toml declares is made in the fleet, also when the database is away for a moment."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.config.config import Declaration
from agent.core.model import Instance, InstanceId
from agent.errors import Refused, TryLater, VaultError, WaError
from agent.store.database import Store
from agent.supervise.fleet.assemble import FleetParts
from agent.supervise.registry import Registry

FIRST, SECOND = InstanceId("first"), InstanceId("second")


class Fleet:
    """Its database refuses the first claim with these errors, one after the other."""

    def __init__(self, *errors: WaError) -> None:
        self.errors = list(errors)
        self.renewals = 0
        self.in_hand: set[InstanceId] = set()
        self.woken: list[InstanceId] = []
        self.known = asyncio.Event()
        self.known.set()

    async def claim(self, _instance: Instance) -> None:
        if self.errors:
            raise self.errors.pop(0)

    async def next_renewal(self) -> None:
        self.renewals += 1


Creates = Callable[[Fleet], Awaitable[Registry]]


@pytest.fixture
async def creates(tmp_path: Path) -> AsyncIterator[Creates]:
    store = await Store.open(tmp_path / "agent.db")

    async def created(fleet: Fleet) -> Registry:
        registry = Registry(store, None, tmp_path / "sessions")
        owner: Any = fleet
        registry.tenure.owner = owner
        parts = FleetParts.__new__(FleetParts)
        given = {
            "fleet": SimpleNamespace(keeper=fleet),
            "ownership": SimpleNamespace(known=fleet.known, wake=fleet.woken.append),
            "supervision": SimpleNamespace(registry=registry),
            "config": SimpleNamespace(
                instance=[Declaration(FIRST, "sandbox"), Declaration(SECOND, "sandbox")]
            ),
        }
        for name, value in given.items():
            object.__setattr__(parts, name, value)
        await parts._create_declared()
        return registry

    yield created
    await store.close()


async def test_a_database_that_is_away_is_asked_again_at_the_next_renewal(creates: Creates) -> None:
    fleet = Fleet(*(TryLater("cannot reach the fleet's database") for _ in range(2)))
    registry = await creates(fleet)
    assert set(registry.facts) == {FIRST, SECOND} and fleet.woken == [FIRST, SECOND]
    assert fleet.renewals == 2


@pytest.mark.parametrize(
    "error", [Refused("another machine has it"), VaultError("cannot create its folder")]
)
async def test_one_that_cannot_be_made_holds_up_no_other(creates: Creates, error: WaError) -> None:
    fleet = Fleet(error)
    registry = await creates(fleet)
    assert set(registry.facts) == {SECOND} and fleet.woken == [SECOND]
    assert fleet.renewals == 0
