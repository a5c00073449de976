import pytest

from agent.core.figures import DAY, judge_silence


@pytest.mark.parametrize(
    ("came", "watched", "silent", "signal"),
    [
        pytest.param(600, 10, 1.1, True, id="a busy session without a message for a day"),
        pytest.param(60000, 10, 0.9, False, id="a night, a quiet Sunday"),
        pytest.param(100, 10, 1.1, False, id="few messages a day"),
        pytest.param(100, 10, 3, True, id="few messages a day, and none for three"),
        pytest.param(0, 10, 3, False, id="it never had one"),
        pytest.param(600, 0, 3, False, id="a clock that was set back"),
    ],
)
def test_silence(came, watched, silent, signal):
    assert bool(judge_silence(came, watched * DAY, silent * DAY)) is signal
