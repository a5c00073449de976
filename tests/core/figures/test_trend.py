"""The lines of the dashboard: small, bounded, and honest about what is not known."""

import tracemalloc

from agent.core.figures.trend import POINTS, Trends
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
    for counted in (10, 3, 200_000):
        trends.note([(A, None, counted)], 0.0)
    line = trends.of(A)
    assert line is not None
    assert line.messages() == [10, 3, 65535]


def test_only_the_last_points_and_only_of_instances_that_are_there_are_kept() -> None:
    trends = Trends(3600.0)
    for at in range(POINTS + 25):
        trends.note([(A, at * 1024, at)] + ([(B, 1024, 0)] if at < 3 else []), float(at))
    line = trends.of(A)
    assert line is not None
    assert line.memory() == [at * 1024 for at in range(25, POINTS + 25)]
    assert len(line.messages()) == POINTS
    assert trends.of(B) is None


def test_a_thousand_instances_take_half_a_megabyte() -> None:
    ids = [InstanceId(f"i{number}") for number in range(1000)]
    tracemalloc.start()
    trends = Trends(3600.0)
    for at in range(POINTS + 5):
        trends.note(((id, 100 << 20, at) for id in ids), float(at))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 800_000, size
