"""Named points: off unless asked for, and never silently misspelled."""

import pytest

from agent.errors import ConfigError
from agent.failpoint import POINTS, FailpointHit, failpoint, parse_failpoints


def test_without_the_variable_nothing_happens(monkeypatch):
    monkeypatch.delenv("WA_FAILPOINT", raising=False)
    for point in POINTS:
        failpoint(point)


def test_only_the_named_point_fails_and_only_when_its_turn_comes(monkeypatch):
    monkeypatch.setenv("WA_FAILPOINT", "before_commit:raise:3,mid_sweep:raise")
    failpoint("before_commit")
    failpoint("after_commit")
    failpoint("before_commit")
    for _ in range(2):
        with pytest.raises(FailpointHit, match="before_commit"):
            failpoint("before_commit")
    with pytest.raises(FailpointHit, match="mid_sweep"):
        failpoint("mid_sweep")


@pytest.mark.parametrize("text", ["befor_commit:kill", "before_commit", "x:y", "mid_sweep:raise:x"])
def test_a_typo_is_an_error(text):
    with pytest.raises(ConfigError, match="WA_FAILPOINT"):
        parse_failpoints(text)
