"""Machines, partitions, stopped processes and lost records in virtual time, on the core."""

from typing import Any
from unittest.mock import patch

import pytest

from agent.core.fleet.acceptance import Accepted
from agent.core.fleet.lease import Lease, LeasePolicy
from scripts.simulation.fleet import database, disk, files, machine, taking
from scripts.simulation.fleet.schedule import Outcome, Schedule, play

SPLIT = {"vouched": (4, 22), "elsewhere": (185,)}
"""Schedules in which the rule decides."""


def test_no_two_machines_run_a_session_and_every_session_comes_back():
    outcomes = [play(f"test/{number}") for number in range(200)]
    assert [it for it in outcomes if it.violations] == []
    assert [it for it in outcomes if it.starving or it.halted] == []
    assert sum(it.takeovers for it in outcomes) > 80
    assert sum(it.losses for it in outcomes) > 10


def test_agents_that_restart_without_the_database_keep_their_sessions():
    outcomes = [play(f"test/{number}", only="restart_without_database") for number in range(100)]
    assert [it for it in outcomes if it.again or it.starving or it.violations] == []


def test_a_machine_that_misses_an_accepted_loss_runs_nothing_by_promises():
    played, outcomes = lost_moves()
    assert len([it for it in played if it.database.tables.accepted != "never"]) > 30
    assert [it for it in outcomes if it.violations or it.starving] == []
    with patch.object(Accepted, "refuses", lambda *_: False):
        assert len([it for it in lost_moves()[1] if it.violations]) > 10


def test_a_renewal_that_arrives_late_makes_no_rival_that_its_machine_does_not_ask():
    seeds = [f"test/{number}" for number in (392,)]
    # Nobody is asked whether its lease holds, as by the version before: this rule stands alone.
    with patch.object(taking, "stands_still", lambda *_: frozenset()):
        outcomes = [play(seed, only="hold_and_cut_off") for seed in seeds]
        assert [it for it in outcomes if it.violations or it.starving] == []
        with patch.object(database, "came_late", lambda *_: False):
            assert all(play(seed, only="hold_and_cut_off").violations for seed in seeds)


@pytest.mark.parametrize(
    ("part", "worse"),
    [
        pytest.param("vouched", lambda sightings, *_: sightings, id="a word does not count"),
        pytest.param("elsewhere", lambda *_: frozenset(), id="two databases halt nothing"),
    ],
)
def test_with_two_primaries_nobody_is_taken_over(part: str, worse: object):
    seeds = [f"test/{number}" for number in SPLIT[part]]
    outcomes = [play(seed, only="two_primaries") for seed in seeds]
    assert [it for it in outcomes if it.violations or it.starving or it.halted] == []
    with patch.object(taking, part, worse):
        assert all(play(seed, only="two_primaries").violations for seed in seeds)


def nothing_went_wrong(outcomes: list[Outcome]) -> bool:
    return not any(it.violations or it.starving or it.halted for it in outcomes)


@pytest.mark.parametrize("world", ["twin", "restore_image", "restore_database"])
def test_what_went_back_in_time_or_is_there_twice_runs_nothing_twice_and_loses_no_pairing(
    world: str,
):
    assert nothing_went_wrong([play(f"test/{number}", only=world) for number in range(60)])


TAKEN_OUT = [
    pytest.param("same_place", lambda *_: True, "twin", (0, 1, 2), id="a copy of a machine renews"),
    pytest.param("follows", lambda *_: True, "hold", (3, 5, 6, 8), id="a copy arrives late"),
    pytest.param("may_live", lambda *_: False, "restore_database", (161,), id="old rows are dead"),
]


@pytest.mark.parametrize(("rule", "worse", "only", "seeds"), TAKEN_OUT)
def test_the_schedules_notice_a_rule_of_the_database_that_is_taken_out(
    rule: str, worse: object, only: str, seeds: tuple[int, ...]
):
    assert nothing_went_wrong([play(f"test/{number}", only) for number in seeds])
    with patch.object(database, rule, worse):
        assert all(play(f"test/{number}", only).violations for number in seeds)


def by_epoch_alone(here: files.Here | None, epoch: int, _number: int) -> bool:
    return here is not None and here.epoch == epoch


def test_the_schedules_notice_a_machine_that_goes_on_with_older_files():
    seeds = [f"test/{number}" for number in (3, 6)]
    with (
        patch.object(files, "is_newest", by_epoch_alone),
        patch.object(machine, "is_newest", by_epoch_alone),
    ):
        assert all(play(seed, only="restore_image").violations for seed in seeds)


def test_the_schedules_notice_a_copy_that_is_fetched_from_older_records():
    assert nothing_went_wrong([play("test/22")])
    with patch.object(files, "lacks_records", lambda *_: False):
        assert play("test/22").violations


def test_while_the_database_refuses_the_machines_no_session_drops():
    outcomes = [play(f"test/{number}", only="refuse") for number in range(15)]
    assert [it for it in outcomes if it.again or it.starving or it.violations] == []
    with patch.object(machine, "no_word", lambda: False):
        assert any(play(f"test/{number}", only="refuse").again for number in range(15))


def test_the_sessions_of_a_machine_with_a_full_disk_run_on_another_one():
    outcomes = [play(f"test/{number}", only="fill_disk") for number in range(30)]
    assert [it for it in outcomes if it.starving or it.violations] == []
    with patch.object(disk, "must_be_kept", lambda: False):
        assert any(play(f"test/{number}", only="fill_disk").starving for number in range(30))


def lost_moves() -> tuple[list[Schedule], list[Outcome]]:
    played = [Schedule(f"test/{number}", only="lose_move") for number in range(100)]
    return played, [it.play() for it in played]


def goes_on_without_promises(
    lease: Lease, begun: float, rivals: object, promised: object, policy: LeasePolicy
) -> Lease:
    return Lease(max(lease.until, begun + policy.usable))


@pytest.mark.parametrize(
    ("where", "part", "worse"),
    [
        pytest.param(
            machine, "extended", goes_on_without_promises, id="promises are not waited for"
        ),
        pytest.param(
            taking,
            "refuse_takeover",
            lambda *_: None,
            id="a machine is taken over without a reason",
        ),
    ],
)
def test_the_schedules_notice_an_arithmetic_that_is_wrong(where: Any, part: str, worse: object):
    with patch.object(where, part, worse):
        assert any(play(f"test/{number}").violations for number in range(300))
