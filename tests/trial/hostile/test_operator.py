"""The operator's generator knows all that can be typed and asked."""

from random import Random

import pytest

from tests.trial.hostile.frame import case_of
from tests.trial.hostile.operating import arguments, commands


def test_each_command_route_argument_and_fail_point_is_played_or_left_out_by_name() -> None:
    assert commands.lacking() == []
    assert arguments.lacking() == []


def test_a_command_and_a_route_that_nobody_told_the_generator_are_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commands, "KEEPS", commands.KEEPS - {"recover"})
    monkeypatch.setattr(commands, "ROUTES_KEEP", commands.ROUTES_KEEP - {"POST {I}/export"})
    assert commands.lacking() == ["recover", "POST {I}/export"]
    monkeypatch.delitem(arguments._ANY, "phone")
    assert "pairing-code phone" in arguments.lacking()


def test_each_command_and_route_can_be_drawn() -> None:
    for name in commands.commands().keys() - commands.LEFT.keys():
        drawn = arguments.draw_command(Random(1), name, "a")
        assert drawn["argv"][: len(name.split())] == name.split()
    for name in commands.routes():
        assert "{" not in arguments.draw_request(Random(1), name, "a")["ask"][1]


def test_a_case_is_the_same_each_time() -> None:
    from tests.trial.hostile import operator

    assert all(case_of(operator, 1, n) == case_of(operator, 1, n) for n in range(50))
