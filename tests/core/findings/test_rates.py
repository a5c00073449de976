from agent.core.figures import ErrorRate, PerMinute


def noted(*moments):
    rate = PerMinute()
    for at in moments:
        rate.note(at)
    return rate


def test_a_flood_keeps_it_small_and_a_clock_that_jumps_back_does_no_harm():
    rate = noted(*(1000 + one / 10 for one in range(5000)))
    assert len(rate.stretches) <= 7
    assert rate.count(1500) == 500
    rate.note(50.0)
    assert rate.count(50.0) == 1


def test_the_share_of_failed_operations_covers_two_windows_at_most():
    rate = ErrorRate()
    for at in range(0, 600, 15):
        rate = rate.note(1000.0 + at, 50, at, 300.0)
    assert rate.judge(50 + 3, 600, 0.1, 10) is None, "old errors say nothing"
    assert rate.judge(50 + 80, 600, 0.1, 10) is not None
