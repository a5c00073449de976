from agent.core.rate import PerMinute


def noted(*moments):
    rate = PerMinute()
    for at in moments:
        rate = rate.note(at)
    return rate


def test_what_came_in_the_last_minute_is_counted():
    rate = noted(100, 101, 115, 130)
    assert rate.count(130) == 4
    assert rate.count(165) == 2
    assert rate.count(1000) == 0


def test_a_flood_keeps_it_small_and_a_clock_that_jumps_back_does_no_harm():
    rate = noted(*(1000 + one / 10 for one in range(5000)))
    assert len(rate.stretches) <= 7
    assert rate.count(1500) == 500
    assert rate.note(50.0).count(50.0) == 1
