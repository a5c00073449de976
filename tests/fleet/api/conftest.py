"""One PostgreSQL and one set of certificates for all tests of a module."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.fleet.machines import AMachine, Fleet, a_fleet
from tests.standin.evolution.certificates import Certificates
from tests.standin.postgres import Postgres, temporary_postgres


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with temporary_postgres() as server:
        server.sql("CREATE ROLE agent LOGIN")
        yield server


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def fleet(
    postgres: Postgres, certificates: Certificates, tmp_path: Path
) -> AsyncIterator[Fleet]:
    async with a_fleet(postgres, certificates, tmp_path) as made:
        yield made


@pytest.fixture
async def two(fleet: Fleet) -> tuple[AMachine, AMachine]:
    """m1 owns `sales`, m2 owns `shop`."""
    first, second = await fleet.add("m1"), await fleet.add("m2")
    await first.own("sales")
    await second.own("shop")
    await fleet.settle()
    return first, second
