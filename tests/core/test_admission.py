from hypothesis import given
from hypothesis import strategies as st

from agent.core.admission import LoginBudget, StartPolicy


@given(st.lists(st.floats(0, 20), min_size=1, max_size=60), st.floats(1, 10), st.floats(0.1, 5))
def test_f54_no_window_sees_more_logins_than_the_budget(steps, logins, every):
    policy, budget = StartPolicy(logins=logins, login_every=every), LoginBudget()
    now, begun = 0.0, []
    for step in steps:
        now += step
        begun += [now for _ in range(20) if budget.take(policy, now) is None]
    for first in range(len(begun)):
        window = [at for at in begun[first:] if at - begun[first] <= 10]
        assert len(window) <= logins + 10 / every + 1


def test_at_the_time_that_it_told_the_budget_gives_a_login():
    policy, budget = StartPolicy(logins=1), LoginBudget()
    budget.take(policy, 1_000_000.1)
    told = budget.take(policy, 1_000_000.1)
    assert budget.take(policy, told) is None, (
        "no time that is not later: a caller would go without it"
    )
