"""Memory for one more worker: promised by limits, before it starts."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from agent.config.config import Config
from agent.core.admission import StartPolicy
from agent.core.model import Instance, InstanceId, SessionRecord, UnitState, UnitStatus
from agent.core.reconcile import ActionKind, Plan
from agent.core.recovery.ladder import Decision
from agent.core.recovery.repair import Goal, Ground, Proof, RecoveryKind, Repair, Trouble
from agent.supervise.act import plan_step
from agent.supervise.facts import Facts, Settings
from agent.supervise.gate import Gate

MIB = 1 << 20
START = Plan("start", (ActionKind.START,), "it should run")
RUNS = UnitStatus(UnitState.ACTIVE, run="r")


def facts(name: str, engine: str = "web", **settings: object) -> Facts:
    return Facts(Instance(InstanceId(name), engine, True, settings), SessionRecord())


def nothing(**more: object) -> SimpleNamespace:
    """Holds no session."""
    return SimpleNamespace(wait_reason=lambda _: "", ask=lambda *_: None, **more)


class House:
    """Room for two of 500 MiB and a small one."""

    def __init__(self) -> None:
        self.budget = 1100 * MIB
        self.rules = StartPolicy(stagger=0.0, parallel=9, login_every=0.0)
        self.gate = Gate(
            settings=SimpleNamespace(
                config=Config(),
                memory_limit=Settings(Config()).memory_limit,
                memory_budget=lambda: self.budget,
                start_policy=lambda remote: self.rules,
            ),
            backends=nothing(may_begin=lambda _: True),
            reaching=nothing(forget=lambda _: None),
            incidents=nothing(pass_turn=lambda _: None),
            wake=lambda _: None,
        )

    def waits_for(self, one: Facts) -> str:
        wait = self.gate.ask(one)
        return wait.reason if wait else ""


@pytest.fixture
def house() -> House:
    return House()


def test_an_admitted_session_counts_at_once_and_the_next_waits_with_the_numbers(house):
    a, b, c = facts("a"), facts("b"), facts("c")
    assert house.gate.ask(a, START) is None
    assert house.gate.ask(b, START) is None, "neither of them runs yet"
    assert house.waits_for(c) == "memory_full"
    assert house.gate.ask(c, START) is not None
    assert house.gate.ask(c).sentence == (
        "too little memory for one more worker: 2 may use 1000 MiB, this one 500 MiB,"
        " all together 1100 MiB"
        " ([memory] total, machine_share)"
    )
    assert house.waits_for(facts("small", "sandbox")) == "", "a small one still fits"
    house.budget = 0
    assert house.waits_for(c) == "", "no budget, no limit"


def test_a_session_that_stops_makes_room_for_the_waiting_one(house):
    a, b, c = facts("a"), facts("b"), facts("c")
    for one in (a, b):
        house.gate.ask(one, START)
        one.unit = RUNS
        house.gate.note_look(one)
    assert house.waits_for(c) == "memory_full"
    house.gate.note_look(a)
    assert house.waits_for(c) == "memory_full", "it still runs"
    a.unit = UnitStatus(UnitState.INACTIVE)
    house.gate.note_look(a)
    assert house.waits_for(c) == ""
    assert house.gate.ask(c, START) is None
    assert house.waits_for(a) == "memory_full"
    house.gate.forget(c.id)
    assert house.waits_for(a) == "", "one that is deleted makes room too"


def test_a_stopped_session_and_one_on_a_backend_wait_for_no_memory(house):
    house.budget = 1
    off = facts("off")
    assert house.waits_for(off) == "memory_full"
    off.instance = Instance(off.id, "web", False)
    assert house.waits_for(off) == ""
    there = facts("there", "evolution", backend="evo")
    assert house.waits_for(there) == ""
    assert house.gate.ask(there, START) is None


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
    assert settings.killed_above(one) == wall * MIB


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
        house.gate.queues.ask(
            busy, house.rules, 1.0, reconnects=number >= 9, lane=backend, ready=lambda: None
        )
    one = facts("one", **settings)
    one.unit = RUNS
    repair = Repair(Trouble.CONNECTION, "", Goal.HEAL, 0.0)
    decision = Decision(kind, "so", proof=Proof(Ground.NO_PAIRING))
    plan = plan_step(decision, repair, remote=bool(backend))
    assert (house.gate.ask(one, plan) is not None) is waits


def test_the_first_of_several_reasons_is_told_and_a_repair_waits_for_no_incident(house):
    one, house.budget = facts("one"), 1
    assert house.waits_for(one) == "memory_full"
    house.gate.incidents.wait_reason = lambda _: "incident"
    assert house.waits_for(one) == house.gate.ask(one, START).reason == "incident"
    house.gate.backends.wait_reason = lambda _: "backend_missing"
    assert house.waits_for(one) == "backend_missing"
    one.unit = RUNS
    banned = replace(one, record=SessionRecord(reason="temporary_ban", not_before_wall=9.0))
    for how in ({"repair": True}, {"ordered": True}):
        plan = Plan("restart", (ActionKind.RESTART,), "so", **how)
        assert house.gate.ask(one, plan) is None
        assert house.gate.ask(banned, plan).reason == "temporary_ban"


def test_a_turn_that_an_open_circuit_ends_takes_no_login_from_others(house: House) -> None:
    house.gate.backends.may_begin = lambda _: False
    back = []
    house.gate.queues.no_login = lambda: back.append(1)
    wait = house.gate.ask(facts("a"), START)
    assert (wait and wait.reason, back) == ("backend_circuit", [1])
