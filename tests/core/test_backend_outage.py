import pytest

from agent.core.backends.outage import Outage, Turn, judge_outage

AWAY, DOWN = Outage(100.0), Outage(100.0, down=True)


@pytest.mark.parametrize(
    ("before", "up", "now", "after", "turn"),
    [
        pytest.param(Outage(), True, 5, Outage(), Turn.NONE, id="it is up and was up"),
        pytest.param(Outage(), False, 100, AWAY, Turn.NONE, id="it may be a blink"),
        pytest.param(AWAY, False, 109.9, AWAY, Turn.NONE, id="it may still be a blink"),
        pytest.param(AWAY, True, 109.9, Outage(), Turn.BLINKED, id="it was a blink"),
        pytest.param(AWAY, False, 110, DOWN, Turn.LEFT, id="its sessions wait from now on"),
        pytest.param(DOWN, False, 500, DOWN, Turn.NONE, id="it is still away"),
        pytest.param(DOWN, True, 500, Outage(), Turn.RETURNED, id="its sessions come back"),
    ],
)
def test_a_blink_is_no_outage(before: Outage, up: bool, now: float, after: Outage, turn: Turn):
    assert judge_outage(before, up=up, now=now, patience=10) == (after, turn)
