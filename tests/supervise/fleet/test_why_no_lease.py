"""A session that waits for its machine's lease names the one cause that holds now."""

from types import SimpleNamespace
from typing import Any

import pytest

from agent.clock import boot_now
from agent.core.fleet.lease import Lease, LeasePolicy
from agent.core.waiting import WAIT_SENTENCES
from agent.supervise.fleet.epochs import Tenancy
from agent.supervise.fleet.owner import FleetOwner
from agent.supervise.tenure import Tenure
from tests.supervise.fleet.test_ownership import SHOP, Bench, owned


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.keeper.__dict__.update(database_error="", halted="", settled=True)
    return bench


def words(bench: Bench, owner: str = "") -> str:
    directory = SimpleNamespace(owner_name=lambda _id: owner)
    fleet: Any = SimpleNamespace(
        keeper=bench.keeper, policy=LeasePolicy(ttl=20), directory=directory
    )
    nothing: Any = None
    tenure = Tenure(FleetOwner(fleet, bench.ownership, *[nothing] * 5))
    assert tenure.wait_reason(facts_of(bench)) == "no_lease"
    return tenure.wait_sentence(bench.facts)


def facts_of(bench: Bench) -> Any:
    bench.facts.unit = SimpleNamespace(runs=False)
    return bench.facts


def test_the_database_is_away(bench: Bench) -> None:
    bench.answer(0, seconds=0.0)
    bench.keeper.database_error = "cannot reach the fleet's database: no route"
    assert words(bench) == (
        "the lease of this machine has ended: cannot reach the fleet's database: no route"
    )


def test_another_machine_owns_it(bench: Bench) -> None:
    bench.answer()
    assert words(bench, "b") == "machine b owns it"
    assert words(bench) == "no machine of the fleet has it"


def test_the_database_has_just_begun(bench: Bench) -> None:
    bench.keeper.settled = False
    bench.answer()
    assert words(bench) == "sessions start when the fleet's database is in use for 20 s"
    bench.keeper.halted = "a change of owners was lost"
    assert words(bench) == (
        "no session changes its machine: a change of owners was lost; wa-agent fleet accept"
    )


def test_its_files_are_elsewhere(bench: Bench) -> None:
    bench.epochs.known = {SHOP: Tenancy(0, 0)}
    bench.ownership.owned = {SHOP: owned(1)}
    bench.ownership.lease = Lease(boot_now() + 60)
    assert words(bench) == "its newest files are not here yet; this machine fetches them"


def test_the_settings_have_no_fleet(bench: Bench) -> None:
    alone = Tenure()
    assert alone.wait_reason(facts_of(bench)) == "no_lease"
    assert "agent.toml has no [fleet]" in alone.wait_sentence(bench.facts)
    assert "another machine" not in WAIT_SENTENCES["no_lease"]
