"""How long things took: a histogram's bounds, and who is acknowledged."""

from agent.core.figures.durations import MOST_AWAITED, MOST_EARLY, Acknowledgements, Histogram


def test_a_value_at_a_bound_belongs_below_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for seconds in (0.5, 1.0, 1.5, 9.0):
        histogram.note(seconds)
    assert histogram.counts == [2, 1, 1]
    assert histogram.total == 12.0


def test_whichever_comes_first_the_time_is_between_the_two() -> None:
    found = Acknowledgements()
    assert found.note_sent("a", 10.0) is None
    assert found.note_acknowledged("a", 10.5) == 0.5
    assert found.note_acknowledged("b", 11.0) is None
    assert found.note_sent("b", 10.0) == 1.0


def test_a_message_without_acknowledgement_is_dropped_after_a_while() -> None:
    found = Acknowledgements()
    for number in range(1000):
        found.note_sent(f"s{number}", 1.0)
        found.note_acknowledged(f"a{number}", 1.0)
    assert len(found.sent) == MOST_AWAITED
    assert len(found.early) == MOST_EARLY
