import pytest

from agent.core.memory import MIB, MemoryPolicy, decide_memory, judge_memory, leaks, note_memory
from agent.core.model import Instance, SessionRecord
from agent.core.session import Run, Session

POLICY = MemoryPolicy()
NOW = 50_000.0
LIMIT = 500 * MIB


def hour_of(curve):
    history = ()
    for minute in range(0, 61, 5):
        history = note_memory(history, int(curve(minute) * MIB), POLICY, NOW - 3600 + minute * 60)
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
    history = ()
    for minute in range(30):
        history = note_memory(history, (100 + minute * 10) * MIB, POLICY, NOW - 1800 + minute * 60)
    assert not leaks(history, POLICY, NOW)


@pytest.mark.parametrize(
    ("used", "name"), [(100, None), (399, None), (400, "memory_high"), (475, "memory_critical")]
)
def test_levels(used, name):
    signal = judge_memory((), used * MIB, LIMIT, POLICY, NOW)
    assert (signal.name if signal else None) == name


def one(name, used, limit=LIMIT, **changes):
    run = Run(memory_bytes=used)
    instance = Instance(name, "sandbox", True)
    return Session(instance, SessionRecord(), run=run, memory_limit=limit, **changes)


def steps(*sessions, busy="", budget=0):
    able = [its.id for its in sessions if its.id not in busy]
    reasons, worst = decide_memory(sessions, able, budget * MIB, POLICY, NOW)
    return [("restart" if id == worst else "free", id) for id in reasons]


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        pytest.param(steps(one("a", 100 * MIB)), [], id="well"),
        pytest.param(steps(one("a", 420 * MIB)), [("free", "a")], id="warn"),
        pytest.param(steps(one("a", 420 * MIB, freed_at=NOW - 60)), [], id="freed a minute ago"),
        pytest.param(
            steps(one("a", 480 * MIB), one("b", 490 * MIB)),
            [("free", "a"), ("restart", "b")],
            id="two critical: one restart",
        ),
        pytest.param(
            steps(one("a", 480 * MIB), one("b", 490 * MIB), busy="ab"),
            [("free", "a"), ("free", "b")],
            id="one at a time",
        ),
        pytest.param(
            steps(one("a", 480 * MIB), busy="a"), [("free", "a")], id="not in the middle of a sync"
        ),
        pytest.param(
            steps(one("a", 300 * MIB), one("b", 350 * MIB), budget=680),
            [("free", "a"), ("restart", "b")],
            id="all together critical: the largest",
        ),
    ],
)
def test_memory_actions_by_level(got, wanted):
    assert got == wanted
