"""The lines of the dashboard: small, bounded, and honest about what is not known."""

import contextlib
import json

from hypothesis import given
from hypothesis import strategies as st

from agent.core.figures import POINTS, Trends, note_due, open_trends, read_trend
from agent.core.model import InstanceId

A, B = InstanceId("a"), InstanceId("b")


def test_a_line_holds_what_was_used_and_what_came_since_the_point_before() -> None:
    trends = Trends(reach=3600.0)
    assert trends.step == 60
    for at, (memory, counted) in enumerate([(None, 0), (4096, 5), (8192, 5), (8192, 12)]):
        trends.note([(A, memory, counted)], 1000.0 + at)
    line = trends.of(A)
    assert line is not None
    assert line.memory() == [None, 4096, 8192, 8192]
    assert line.messages() == [0, 5, 0, 7]
    assert trends.noted_wall == 1003.0


def test_a_count_reset_to_zero_makes_no_negative_point() -> None:
    trends = Trends(3600.0)
    for counted in (10, 3, 200_000, 10**11):
        trends.note([(A, None, counted)], 0.0)
    line = trends.of(A)
    assert line is not None
    assert line.messages() == [0, 3, 199_997, 2**32 - 1]


def test_each_reach_has_points_of_its_own_and_a_time_without_an_agent_is_left_out() -> None:
    trends = open_trends()
    begun = 1_000_000.0
    for minute in range(0, 24 * 60 * 3, 1):
        note_due(trends, lambda at=minute: [(A, 1024, at)], begun + minute * 60)
    steps = {word: one.step for word, one in trends.items()}
    assert steps == {"latest": 60, "day": 1440, "week": 10_080, "month": 43_200}
    lines = {word: line for word, one in trends.items() if (line := one.of(A)) is not None}
    points = {word: len(line.memory()) for word, line in lines.items()}
    assert points == {"latest": 60, "day": 60, "week": 26, "month": 6}
    assert lines["week"].messages()[1:] == [168] * 25
    assert lines["month"].messages()[1:] == [720] * 5

    later = (trends["week"].noted_wall or 0) + 3 * 10_080
    note_due(trends, lambda: [(A, 2048, 9000)], later)
    assert lines["week"].memory()[-4:] == [1024, None, None, 2048]
    assert lines["day"].memory()[-2:] == [None, 2048]


@given(st.text() | st.sampled_from(["[[1],[1],1]", "[[-1],[1],1]", "[[1],[],1]", "[1,2,3]"]))
def test_what_is_no_line_is_read_as_none(text: str) -> None:
    with contextlib.suppress(ValueError, TypeError):
        read_trend(json.loads(text))


def test_only_the_last_points_and_only_of_instances_that_are_there_are_kept() -> None:
    trends = Trends(3600.0)
    for at in range(POINTS + 25):
        trends.note([(A, at * 1024, at)] + ([(B, 1024, 0)] if at < 3 else []), float(at))
    line = trends.of(A)
    assert line is not None
    assert line.memory() == [at * 1024 for at in range(25, POINTS + 25)]
    assert len(line.messages()) == POINTS
    assert trends.of(B) is None
