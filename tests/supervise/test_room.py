"""Memory for one more worker: promised by limits, before it starts."""

from types import SimpleNamespace

import pytest

from agent.config.config import Config
from agent.core.admission import StartPolicy
from agent.core.model import Instance, InstanceId, SessionRecord, UnitState, UnitStatus
from agent.core.plan import ActionKind, Plan
from agent.core.recovery.proof import Ground, Proof
from agent.core.recovery.repair import Decision, RecoveryKind
from agent.supervise.facts import Facts
from agent.supervise.passes.repair import plan_step
from agent.supervise.settings import Settings
from agent.supervise.turns.memory import MemoryRoom
from agent.supervise.turns.queues import Queues
from agent.supervise.turns.turns import Turns

MIB = 1 << 20
START = Plan("start", (ActionKind.START,), "it should run")
RUNS = UnitStatus(UnitState.ACTIVE, run="r")


def facts(name: str, engine: str = "web", **settings: object) -> Facts:
    return Facts(Instance(InstanceId(name), engine, True, settings), SessionRecord())


class House:
    """Room for two of 500 MiB and a small one."""

    def __init__(self) -> None:
        self.woken: list[InstanceId] = []
        self.budget = 1100 * MIB
        settings = Settings(Config())
        self.room = MemoryRoom(
            limit=settings.memory_limit,
            budget=lambda: self.budget,
            wanted=lambda one: one.instance.enabled,
            wake=self.woken.append,
        )
        rules = StartPolicy(stagger=0.0, parallel=9, login_every=0.0)
        gates = Queues(
            lambda: rules,
            lambda: rules,
            wake=self.woken.append,
            idle=lambda: True,
            jitter=lambda: 0.0,
        )
        reaching = SimpleNamespace(ask=lambda _facts, _now: None, forget=lambda _id: None)
        self.turns = Turns(gates, self.room, reaching, lambda _facts, _now: None, lambda _facts: "")


@pytest.fixture
def house() -> House:
    return House()


def test_an_admitted_session_counts_at_once_and_the_next_waits_with_the_numbers(house):
    a, b, c = facts("a"), facts("b"), facts("c")
    assert house.turns.ask(a, START) is None
    assert house.turns.ask(b, START) is None, "neither of them runs yet"
    assert house.room.wait_reason(c) == "memory_full"
    assert house.turns.ask(c, START) is not None
    assert house.room.lacks(c) == (
        "too little memory for one more worker: 2 may use 1000 MiB, this one 500 MiB,"
        " all together 1100 MiB"
        " ([memory] total, machine_share)"
    )
    small = facts("small", "sandbox")
    assert house.room.wait_reason(small) == "", "a small one still fits"
    house.budget = 0
    assert house.room.wait_reason(c) == "", "no budget, no limit"


def test_a_session_that_stops_makes_room_and_wakes_the_waiting_one(house):
    a, b, c = facts("a"), facts("b"), facts("c")
    for one in (a, b):
        house.turns.ask(one, START)
        one.unit = RUNS
        house.room.note(one)
    assert house.room.wait_reason(c) == "memory_full"
    house.room.note(a)
    assert house.woken == [], "it still runs"
    a.unit = UnitStatus(UnitState.INACTIVE)
    house.room.note(a)
    assert house.woken == [c.id]
    assert house.room.wait_reason(c) == ""
    assert house.turns.ask(c, START) is None
    assert house.room.wait_reason(a) == "memory_full"
    house.turns.forget(c.id)
    assert house.woken[-1] == a.id, "one that is deleted makes room too"


def test_a_worker_that_runs_may_always_restart(house):
    a, b, c = facts("a"), facts("b"), facts("c")
    for one in (a, b, c):  # they ran before us: adopted, too many or not
        one.unit = RUNS
        house.room.note(one)
    assert [house.room.wait_reason(one) for one in (a, b, c)] == ["", "", ""]
    assert house.turns.ask(c, START) is None


def test_a_stopped_session_and_one_on_a_backend_wait_for_no_memory(house):
    house.budget = 1
    off = facts("off")
    assert house.room.wait_reason(off) == "memory_full"
    off.instance = Instance(off.id, "web", False)
    assert house.room.wait_reason(off) == ""
    there = facts("there", "evolution", backend="evo")
    assert house.room.wait_reason(there) == ""
    assert house.turns.ask(there, START) is None


@pytest.mark.parametrize(
    ("one", "limit", "wall"),
    [
        pytest.param(facts("a"), 500, 640, id="a browser"),
        pytest.param(facts("a", memory_limit=900 * MIB), 900, 1125, id="granted more"),
        pytest.param(facts("a", memory_limit=100 * MIB), 100, 640, id="granted less"),
        pytest.param(facts("a", memory_limit=0), 0, 0, id="no limit of its own"),
        pytest.param(facts("a", "evolution", backend="e"), 0, 640, id="no process here"),
    ],
)
def test_the_limit_and_the_wall_behind_it_are_in_step(one, limit, wall):
    settings = Settings(Config())
    assert settings.memory_limit(one) == limit * MIB
    assert settings.memory_wall(one) == wall * MIB


@pytest.mark.parametrize(
    ("kind", "backend", "waits"),
    [
        (RecoveryKind.RECONNECT, "", True),
        (RecoveryKind.CLEANUP, "", True),
        (RecoveryKind.REGENERATE_KEYS, "evo", True),
        (RecoveryKind.REGENERATE_KEYS, "", False),
        (RecoveryKind.BACK_UP, "", False),
    ],
)
def test_the_steps_of_a_repair_that_log_in_wait_for_their_turn(house, kind, backend, waits):
    settings = {"backend": backend} if backend else {}
    for number in range(18):
        busy = InstanceId(f"busy{number}")
        house.turns.gates.ask(busy, 1.0, reconnects=number >= 9, lane=backend)
    one = facts("one", **settings)
    one.unit = RUNS
    decision = Decision(kind, "so", proof=Proof(Ground.NO_PAIRING))
    plan = plan_step(decision, remote=bool(backend))
    assert (house.turns.ask(one, plan) is not None) is waits
