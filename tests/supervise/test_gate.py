"""The queue in front of starts."""

from agent.core.admission import StartPolicy
from agent.core.model import InstanceId
from agent.supervise.gate import Gates, StartGate

A, B, C = (InstanceId(name) for name in "abc")


def gate(woken: list[InstanceId], *, idle: bool = False, **policy: float) -> StartGate:
    rules = StartPolicy(**{"stagger": 2.0, "parallel": 2, "login_every": 0.0, **policy})
    return StartGate(lambda: rules, wake=woken.append, idle=lambda: idle, jitter=lambda: 0.0)


def test_the_first_goes_at_once_and_the_next_after_the_stagger():
    woken: list[InstanceId] = []
    it = gate(woken)
    assert it.ask(A, 100.0) is None
    assert it.ask(B, 100.0) == 102.0
    assert it.ask(B, 102.0) is None


def test_first_come_first_served():
    it = gate([], parallel=1)
    assert it.ask(A, 100.0) is None
    assert it.ask(B, 100.0) is not None
    assert it.ask(C, 100.0) is not None
    it.settled(A)
    assert it.ask(C, 110.0) is not None, "c came after b"
    assert it.ask(B, 110.0) is None


def test_a_start_that_came_to_something_makes_room_and_wakes_the_next():
    woken: list[InstanceId] = []
    it = gate(woken, parallel=1, stagger=0.0)
    it.ask(A, 100.0)
    it.ask(B, 100.0)
    woken.clear()
    it.settled(A)
    assert woken == [B]
    assert it.ask(B, 100.0) is None


def test_one_that_is_no_longer_wanted_does_not_hold_the_queue():
    woken: list[InstanceId] = []
    it = gate(woken, parallel=1, stagger=0.0)
    it.ask(A, 100.0)
    it.ask(B, 100.0)
    it.ask(C, 100.0)
    it.withdraw(B)
    it.settled(A)
    assert it.ask(C, 100.0) is None


def test_sooner_when_the_one_before_is_ready_and_the_machine_is_idle():
    it = gate([], idle=True)
    assert it.ask(A, 100.0) is None
    assert it.ask(B, 100.1) == 102.0, "a is still on its way"
    it.settled(A)
    assert it.ask(B, 100.2) is None


def test_reconnects_wait_for_no_stagger_but_for_the_parallel_limit():
    it = gate([], parallel=2)
    assert it.ask(A, 100.0, reconnects=True) is None
    assert it.ask(B, 100.0, reconnects=True) is None
    assert it.ask(C, 100.0, reconnects=True) is not None
    it.settled(A)
    assert it.ask(C, 100.0, reconnects=True) is None


def test_many_that_drop_at_once_come_back_at_the_pace_of_the_login_budget():
    it = gate([], parallel=1000, logins=3, login_every=1.0)
    ids = [InstanceId(f"i{number}") for number in range(6)]
    at_once = [id for id in ids if it.ask(id, 100.0, reconnects=True) is None]
    assert len(at_once) == 3
    assert it.ask(ids[3], 101.0, reconnects=True) is None
    assert it.ask(ids[4], 101.0, reconnects=True) is not None


def test_each_backend_has_a_gate_of_its_own():
    local = gate([], parallel=1)
    gates = Gates(local, lambda: gate([], parallel=2, stagger=0.0))
    assert gates.ask(A, 100.0) is None
    assert gates.ask(B, 100.0) is not None, "the machine starts one at a time"
    assert gates.ask(C, 100.0, lane="evo") is None, "which is nothing to a backend"
    D, E = InstanceId("d"), InstanceId("e")
    assert gates.ask(D, 100.0, lane="evo") is None
    assert gates.ask(E, 100.0, lane="evo") is not None
    gates.settled(C)
    assert gates.ask(E, 100.0, lane="evo") is None
    gates.withdraw(D)
    assert local.under_way == 1
