from agent.core.findings.error_rate import ErrorRate, PerMinute
from agent.core.model import Health
from agent.supervise.facts import WINDOW, RecentTimes


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


def test_the_mean_response_time_is_of_the_last_minutes_alone():
    times = RecentTimes()
    assert times.mean(1000.0) is None, "nothing was measured: that is not 0"
    for at in range(0, 3600, 30):
        times = times.note(9.0, 1000.0 + at)
    assert times.mean(4570.0) == 9.0
    assert len(times.stretches) <= WINDOW / 30 + 1
    for at in range(0, 300, 30):
        times = times.note(0.5, 4600.0 + at)
    assert times.mean(4870.0) == 0.5, "a slow hour is over"
    assert times.mean(4870.0 + WINDOW) is None
    assert times.note(0.25, 50.0).mean(50.0) == 0.25, "a clock that was put back does no harm"
