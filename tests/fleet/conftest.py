"""Machines of a fleet that share one real PostgreSQL."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.fleet.postgres.schema import prepare
from agent.store.database import Store
from tests.fleet.sites import Site
from tests.standin.postgres import Postgres, temporary_postgres


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Postgres]:
    with temporary_postgres() as server:
        yield server


@pytest.fixture
async def site(shared_server: Postgres, tmp_path: Path) -> AsyncIterator[Callable[[str], Any]]:
    shared_server.sql("DROP SCHEMA IF EXISTS wa_agent CASCADE")
    await prepare(shared_server.url)
    sites: list[Site] = []

    async def made(name: str) -> Site:
        root = tmp_path / name / "sessions"
        root.mkdir(parents=True, mode=0o700)
        store = await Store.open(tmp_path / name / "agent.db")
        coordinator = PostgresCoordinator(shared_server.url, 6.0, 20.0)
        sites.append(Site(root, store, coordinator))
        await sites[-1].join(name)
        return sites[-1]

    yield made
    for each in sites:
        await each.store.close()
        await each.coordinator.close()
