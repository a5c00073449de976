import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.memory import (
    MIB,
    InstanceMemory,
    MemoryHistory,
    MemoryPolicy,
    decide_memory,
    judge_memory,
    leaks,
)

POLICY = MemoryPolicy()
NOW = 50_000.0
LIMIT = 500 * MIB


def hour_of(curve):
    history = MemoryHistory()
    for minute in range(0, 61, 5):
        history = history.note(int(curve(minute) * MIB), POLICY, NOW - 3600 + minute * 60)
    return history


@pytest.mark.parametrize(
    ("curve", "leaking"),
    [
        pytest.param(lambda m: 200 + m, True, id="even growth"),
        pytest.param(lambda m: 100 + 150 * min(m, 20) / 20, False, id="warm-up, then a plateau"),
        pytest.param(lambda m: 200 + 40 * ((m // 5) % 2), False, id="saw-tooth of a collector"),
        pytest.param(lambda m: 200 + m + 30 * ((m // 5) % 2), True, id="saw-tooth on a slope"),
    ],
)
def test_a_leak_is_distinguished_from_a_plateau(curve, leaking):
    assert leaks(hour_of(curve), POLICY, NOW) is leaking


def test_half_an_hour_is_no_trend():
    history = MemoryHistory()
    for minute in range(30):
        history = history.note((100 + minute * 10) * MIB, POLICY, NOW - 1800 + minute * 60)
    assert not leaks(history, POLICY, NOW)


@pytest.mark.parametrize(
    ("used", "name"), [(100, None), (399, None), (400, "memory_high"), (475, "memory_critical")]
)
def test_levels(used, name):
    signal = judge_memory(MemoryHistory(), used * MIB, LIMIT, POLICY, NOW)
    assert (signal.name if signal else None) == name


def one(name, used, **changes):
    return InstanceMemory(name, used * MIB, LIMIT, **changes)


def steps(*instances, budget=0):
    return [
        ("restart" if action.restart else "free", action.id)
        for action in decide_memory(instances, budget * MIB, POLICY, NOW)
    ]


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        pytest.param(steps(one("a", 100)), [], id="well"),
        pytest.param(steps(one("a", 420)), [("free", "a")], id="warn"),
        pytest.param(steps(one("a", 420, freed_at=NOW - 60)), [], id="freed a minute ago"),
        pytest.param(
            steps(one("a", 480), one("b", 490)),
            [("free", "a"), ("restart", "b")],
            id="two critical: one restart",
        ),
        pytest.param(
            steps(one("a", 480, restarting=True), one("b", 490)),
            [("free", "b")],
            id="one at a time",
        ),
        pytest.param(
            steps(one("a", 480, restartable=False)),
            [("free", "a")],
            id="not in the middle of a sync",
        ),
        pytest.param(
            steps(one("a", 300), one("b", 350), budget=680),
            [("free", "a"), ("restart", "b")],
            id="all together critical: the largest",
        ),
    ],
)
def test_memory_actions_by_level(got, wanted):
    assert got == wanted


@given(
    st.lists(
        st.builds(
            InstanceMemory,
            id=st.text("abcdef", min_size=1, max_size=4),
            used=st.integers(0, 2**40),
            limit=st.integers(0, 2**40),
            freed_at=st.one_of(st.none(), st.floats(0, 2 * NOW)),
            restarted_at=st.one_of(st.none(), st.floats(0, 2 * NOW)),
            restarting=st.booleans(),
            restartable=st.booleans(),
        ),
        max_size=12,
        unique_by=lambda one: one.id,
    ),
    st.integers(0, 2**41),
)
def test_never_two_restarts_at_once(instances, budget):
    actions = decide_memory(instances, budget, POLICY, NOW)
    restarts = [action for action in actions if action.restart]
    assert len(restarts) + sum(one.restarting for one in instances) <= max(
        1, sum(one.restarting for one in instances)
    )
    assert len({action.id for action in actions}) == len(actions)
