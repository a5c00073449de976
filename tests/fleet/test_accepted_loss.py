"""A machine that hears of an accepted loss of records, and reached no database before it."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from agent.core.fleet.lease import Lease, LeasePolicy
from agent.errors import TryLater
from agent.fleet.coordinator import Machine, MachineRow, Member, Owned, Renewal
from agent.fleet.keeper import Keeper
from agent.fleet.postgres.coordinator import PostgresCoordinator

SESSION = Owned("s1", 0, "sandbox", "running", "newest", {}, "", {})
BEFORE, ACCEPTED = "1000 -Infinity 1001", "1000 1763.5 1001"


class Database:
    """What it answers is set by the test."""

    server, halted = BEFORE, ""
    renews = reads = True
    renewals = 0

    async def join(self, _machine: Machine) -> Member:
        return Member(1, 0, 0)

    async def renew(self, *_asked: object) -> Renewal:
        self._refuse(self.renews)
        self.renewals += 1
        numbers = {1: self.renewals}
        return Renewal(True, 0, numbers, frozenset(), 1, 1, True, self.halted, False, self.server)

    async def owned(self, _member: Member) -> Sequence[Owned]:
        self._refuse(self.reads)
        return [SESSION]

    async def machines(self) -> Sequence[MachineRow]:
        return []

    def _refuse(self, answers: bool) -> None:
        if not answers:
            raise TryLater("cannot reach the database: the test says so", code="fleet_database")


async def joined(database: Database, folder: Path, leases: list[Lease]) -> Keeper:
    """It notes each lease with which the session may run."""
    keeper = Keeper(
        cast(PostgresCoordinator, database),
        Machine("a", ""),
        LeasePolicy(),
        path=folder / "fleet.json",
        ask_rival=None,  # type: ignore[arg-type] - it has no rivals
        changed=lambda owned, lease: leases.append(lease) if owned else None,
    )
    await keeper.join()
    return keeper


async def test_what_ran_before_is_read_again_before_its_lease_goes_on(tmp_path: Path) -> None:
    database, leases = Database(), list[Lease]()
    keeper = await joined(database, tmp_path, leases)
    await keeper.step()
    assert len(leases) == 1
    assert keeper.promise(2, 0)
    database.server, database.reads = ACCEPTED, False
    with pytest.raises(TryLater):
        await keeper.step()
    database.renews = False
    await keeper.step()
    assert keeper.lease_by == "promises"
    assert len(leases) == 1, "another machine may own it"
    assert not keeper.promise(2, 0, "1763.5"), "until this machine read settled records"
    database.renews = database.reads = True
    await keeper.step()
    assert len(leases) == 2
    assert not keeper.settled
    memory = keeper._memory.now
    assert (memory.accepted.loss, memory.lost) == ("1763.5", True)


async def test_an_agent_that_begins_after_an_accepted_loss_waits_for_what_it_promised_before(
    tmp_path: Path,
) -> None:
    database, leases = Database(), list[Lease]()
    database.halted = "the test says so"
    keeper = await joined(database, tmp_path, leases)
    await keeper.step()
    assert keeper.promise(2, 0), "all go on until the loss is accepted"
    database.server, database.halted = ACCEPTED, ""
    keeper = await joined(database, tmp_path, leases)
    await keeper.step()
    assert not keeper.settled, "though the database is settled by its own clock"
    assert leases == []
