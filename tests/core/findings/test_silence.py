import pytest

from agent.core.figures import HOURS, Inbound, expected_messages, judge_silence, note_hour

WEEK = 1_700_006_400.0  # a whole hour
HOUR = 3600.0


def shop(day=60, night=0):
    """Two weeks of a shop with `day` messages an hour from 8 to 20 and `night` else."""
    inbound = Inbound()
    for hour in range(2 * HOURS):
        inbound = note_hour(inbound, WEEK + hour * HOUR, day if 8 <= hour % 24 < 20 else night)
    return inbound


END = WEEK + 2 * HOURS * HOUR


def at(hour):
    return END + hour * HOUR


def silent(hour, since, *, acks=True, inbound=None, connected=0.0):
    known = inbound or shop()
    known = Inbound(known.rates, known.watched, at(since), at(hour) if acks else at(since) - 1)
    return judge_silence(known, connected, at(hour))


@pytest.mark.parametrize(
    ("found", "signal"),
    [
        pytest.param(silent(11, 10), True, id="an hour without a message at 11"),
        pytest.param(silent(10.3, 10), False, id="eighteen minutes"),
        pytest.param(silent(32, 19.9), False, id="a quiet night"),
        pytest.param(silent(33, 19.9), True, id="a quiet night and a quiet morning"),
        pytest.param(silent(11, 10, connected=at(10.9)), False, id="just connected"),
        pytest.param(silent(11, 10, inbound=Inbound()), False, id="nothing learned yet"),
    ],
)
def test_silence(found, signal):
    assert bool(found) is signal


def test_expectation_adds_up_over_hours_and_never_more_than_a_week():
    inbound = shop(day=60)
    assert expected_messages(inbound, at(10.5), at(12.5)) == pytest.approx(120)
    assert expected_messages(inbound, 0, at(0)) == pytest.approx(7 * 12 * 60)
    assert expected_messages(inbound, at(5), at(1)) == 0
