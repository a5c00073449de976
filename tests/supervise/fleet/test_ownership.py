"""What a machine owns between two answers of the database, and which folder gets its lease."""

from types import SimpleNamespace
from typing import Any

import pytest

from agent.clock import boot_now
from agent.core.fleet.lease import Lease
from agent.core.model import Instance, InstanceId
from agent.fleet.coordinator import Owned
from agent.supervise.fleet.epochs import Tenancy
from agent.supervise.fleet.ownership import Ownership

SHOP = InstanceId("shop")


class Bench:
    def __init__(self) -> None:
        self.keeper = SimpleNamespace(losses=0)
        self.epochs = SimpleNamespace(known={SHOP: Tenancy(0, 0)})
        self.given: list[set[InstanceId]] = []
        self.woken: list[InstanceId] = []
        self.facts: Any = SimpleNamespace(
            id=SHOP, instance=Instance(SHOP, "sandbox", True, leased=True)
        )
        leases: Any = SimpleNamespace(give=lambda _until, ids: self.given.append(set(ids)))
        keeper: Any = self.keeper
        epochs: Any = self.epochs
        self.ownership = Ownership(keeper, {SHOP: self.facts}, epochs, leases, self.woken.append)

    def answer(self, *epochs: int, seconds: float = 60.0) -> bool:
        """The database says that SHOP is this machine's in that epoch; whether it counts."""
        self.ownership.changed([owned(it) for it in epochs], Lease(boot_now() + seconds))
        return SHOP in self.ownership.owned

    @property
    def waits(self) -> bool:
        return bool(self.ownership.wait_reason(self.facts))


def owned(epoch: int) -> Owned:
    return Owned(SHOP, epoch, "sandbox", "running", "newest", {}, "", {})


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_session_that_was_made_here_is_owned_before_an_answer_has_it(bench: Bench) -> None:
    assert not bench.answer()
    bench.ownership.claimed(owned(0))
    assert bench.answer() and not bench.waits
    assert bench.answer(0)
    assert not bench.answer(), "an answer had it, so a later one that lacks it counts"


def test_a_session_that_was_given_away_comes_back_in_a_newer_epoch_only(bench: Bench) -> None:
    assert bench.answer(0)
    bench.ownership.released(SHOP)
    assert bench.given[-1] == set() and bench.waits
    assert not bench.answer(0), "an older answer"
    assert bench.answer(2)


def test_after_lost_records_it_comes_back_in_the_epoch_in_which_it_was_given_away(
    bench: Bench,
) -> None:
    assert bench.answer(0)
    bench.ownership.released(SHOP)
    bench.keeper.losses += 1
    assert bench.answer(0)


def test_a_folder_of_an_earlier_epoch_gets_no_lease(bench: Bench) -> None:
    assert bench.answer(1)
    assert bench.given == [set()] and bench.waits
    bench.epochs.known[SHOP] = Tenancy(1, 0)
    assert bench.answer(1)
    assert bench.given[-1] == {SHOP} and not bench.waits


def test_a_lease_that_begins_again_wakes_what_waited_for_it(bench: Bench) -> None:
    bench.answer(0, seconds=-1.0)
    assert bench.waits and not bench.ownership.known.is_set() and bench.given == [set()]
    bench.answer(0)
    bench.answer(0)
    assert bench.woken == [SHOP]
