from agent.core.findings.rates import ErrorRate, LogLimit, PerMinute
from agent.core.model import Health


def noted(*moments):
    rate = PerMinute()
    for at in moments:
        rate = rate.note(at)
    return rate


def test_a_flood_keeps_it_small_and_a_clock_that_jumps_back_does_no_harm():
    rate = noted(*(1000 + one / 10 for one in range(5000)))
    assert len(rate.stretches) <= 7
    assert rate.count(1500) == 500
    assert rate.note(50.0).count(50.0) == 1


def test_a_flood_gets_a_few_lines_a_minute_and_says_how_many_it_hid():
    limit, shown = LogLimit(), 0
    for one in range(500):
        limit, show, hidden = limit.note(1000 + one / 10)
        shown += show
        assert not hidden
    assert shown == 20
    _, show, hidden = limit.note(1061.0)
    assert (show, hidden) == (True, 480)


def test_the_share_of_failed_operations_covers_the_window_only():
    rate = ErrorRate()
    for at in range(0, 600, 15):
        rate = rate.note(1000.0 + at, 50, at, 300.0)
    assert rate.judge(50, 600, 0.1, 10) is None, "old errors say nothing"
    assert rate.judge(50 + 3, 600, 0.1, 10) is None
    found = rate.judge(50 + 60, 600, 0.1, 10)
    assert found is not None
    assert (found.name, found.level) == ("error_rate", Health.DEGRADED)
    assert found.detail.startswith("60 of its last ")
    assert len(rate.samples) <= 25
