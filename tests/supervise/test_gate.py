"""The queue in front of starts."""

from dataclasses import replace
from typing import Any

from agent.core.admission import ABSENT, ASK_AGAIN, Queues, StartPolicy
from agent.core.model import InstanceId

A, B, C = (InstanceId(name) for name in "abc")


class Gate(Queues):
    rules: dict[str, StartPolicy]
    woken: list[InstanceId]

    def ask(self, id: InstanceId, now: float, **more: Any) -> float | None:
        rules = self.rules["remote" if more.get("lane") else "here"]
        return super().ask(id, rules, now, **{"ready": lambda: None, **more})


def gate(remote: dict[str, float] | None = None, **policy: float) -> Gate:
    rules = StartPolicy(**{"stagger": 2.0, "parallel": 2, "login_every": 0.0, **policy})
    made = Gate((woken := list[InstanceId]()).append)
    made.rules, made.woken = {"here": rules, "remote": replace(rules, **(remote or {}))}, woken
    return made


def test_the_next_start_begins_as_soon_as_the_one_before_is_light():
    it = gate(parallel=3)
    assert it.ask(A, 100.0) is None
    assert it.ask(B, 100.0) == 102.0
    it.woken.clear()
    it.free_place(B)
    assert it.ask(B, 100.1) == 102.0, "it is not the one that started last"
    it.free_place(A)
    assert it.woken == [B]
    assert it.ask(B, 100.3) is None
    it.free_place(A)
    assert it.ask(C, 100.4) == 102.3, "B is the last one now"


def test_what_a_session_waits_for_when_its_turn_has_come_costs_it_no_place():
    it = gate(parallel=1, stagger=0.0, logins=2, login_every=60.0)
    assert it.ask(A, 100.0) is None
    assert it.ask(B, 100.0) and it.ask(C, 100.0)
    it.leave(B)
    it.try_ended(A)
    assert it.ask(B, 101.0, ready=lambda: 105.0) == 105.0, "its address has to be looked at"
    it.leave(B)
    assert it.before(B) == 0
    assert it.ask(B, 103.0) is None, "the login was not used up"


def test_one_that_waits_for_a_look_holds_up_no_other():
    it = gate(parallel=1, stagger=0.0)
    assert it.ask(A, 100.0) is None
    assert it.ask(B, 100.0) and it.ask(C, 100.0)
    it.try_ended(A)
    assert it.ask(B, 100.0, ready=lambda: 104.0) == 104.0
    assert it.woken[-1] == C
    assert it.ask(C, 100.0) is None


def test_a_light_start_leaves_its_place_to_the_next():
    it = gate(parallel=1, stagger=0.0)
    assert it.ask(A, 100.0) is None
    assert it.ask(B, 100.0) is not None, "a's process takes the machine"
    it.woken.clear()
    it.free_place(A)
    assert it.woken == [B], "a only waits for WhatsApp"
    assert it.ask(B, 100.0) is None
    assert it.ask(C, 100.0) is not None
    it.woken.clear()
    it.free_place(A)
    it.try_ended(A)
    assert it.woken == [C], "a has left one place, not two"
    assert it.ask(C, 100.0) is not None, "b is the one now"
    it.free_place(B)
    assert it.ask(C, 100.0) is None


def test_a_long_wait_for_a_turn_costs_no_place():
    it = gate(stagger=60.0, parallel=4)
    assert it.ask(InstanceId("d"), 100.0) is it.ask(A, 100.0) is None, "half begin at once"
    assert it.ask(B, 100.0) == 160.0
    it.ask(C, 130.0)
    assert it.ask(C, 160.0) is not None, "b was told to ask at this moment"
    assert it.ask(B, 160.0) is None


def test_a_deleted_session_does_not_block_the_queue():
    it = gate(parallel=1, stagger=0.0)
    for id in (A, B, C):
        it.ask(id, 100.0)
    it.withdraw(B)
    it.try_ended(A)
    assert it.ask(C, 100.0) is None


def test_a_session_that_did_not_ask_in_its_last_pass_leaves_and_wakes_the_next():
    it = gate(parallel=1, stagger=0.0)
    it.ask(A, 100.0)
    it.ask(B, 100.0)
    it.ask(C, 101.0)
    it.leave(B)
    assert it.before(B) == 0, "it asked in this very pass"
    it.woken.clear()
    it.leave(B)
    assert (it.before(B), it.before(C), it.woken) == (None, 0, [C])
    it.leave(A)
    assert it.ask(C, 105.0) is not None, "a, which is under way, keeps its place"


def test_a_pass_that_hangs_holds_up_other_sessions_for_a_short_time_only():
    it = gate(parallel=1, stagger=0.0)
    for id in (A, B, C):
        it.ask(id, 100.0)
    it.try_ended(A)
    assert it.ask(C, 100.0 + ASK_AGAIN) is not None, "b may still come"
    assert it.ask(C, 100.0 + ASK_AGAIN + ABSENT) is None


def fleet(**policy: float) -> Gate:
    """This machine, one at a time, and its backends, two at a time each."""
    return gate(stagger=0.0, parallel=1, remote={"parallel": 2}, **policy)


def test_every_backend_has_a_gate_of_its_own():
    gates = fleet()
    assert gates.ask(A, 100.0) is None
    assert gates.ask(B, 100.0) is not None, "the machine starts one at a time"
    assert gates.ask(C, 100.0, lane="evo") is None, "which is nothing to a backend"
    D, E = InstanceId("d"), InstanceId("e")
    assert gates.ask(D, 100.0, lane="evo") is None
    assert gates.ask(E, 100.0, lane="evo") is not None
    assert (gates.before(E), gates.before(B), gates.before(D)) == (0, 0, None)
    gates.try_ended(C)
    assert gates.ask(E, 100.0, lane="evo") is None
    gates.withdraw(D)
    assert gates.ask(B, 100.0) is not None, "a is still under way on this machine"


def test_the_login_budget_is_one_for_this_machine_and_all_backends():
    gates = fleet(logins=2, login_every=1.0)
    assert gates.ask(A, 100.0, lane="evo") is None
    assert gates.ask(B, 100.0, lane="desk") is None
    assert gates.ask(C, 100.0) == 101.0, "two were in it, wherever they went"
    assert gates.ask(C, 101.0) is None


def test_a_start_that_finds_its_session_connected_gives_its_login_back():
    gates = fleet(logins=1, login_every=60.0)
    assert gates.ask(A, 100.0, lane="evo") is None
    assert gates.ask(B, 100.0, lane="evo") == 160.0
    gates.no_login()
    gates.no_login()  # never more than a full budget
    assert gates.ask(B, 100.0, lane="evo") is None
    assert gates.ask(C, 100.0) == 160.0


def test_starts_are_spread_and_as_many_as_are_allowed_are_under_way():
    it = gate(parallel=2)
    assert (it.ask(A, 100.0), it.ask(B, 100.0), it.ask(B, 102.0)) == (None, 102.0, None)
    assert it.ask(C, 110.0) == 110.0 + ASK_AGAIN, "two are under way"
    back = gate()
    assert (back.ask(A, 9_999.0), back.ask(B, 100.0)) == (None, 102.0), "the clock was set back"


def test_a_reconnect_waits_for_no_spacing():
    it = gate(parallel=2)
    assert it.ask(A, 100.0) is None
    assert it.ask(B, 100.0, reconnects=True) is None
    assert it.ask(C, 100.0, reconnects=True) == 100.0 + ASK_AGAIN, "two are under way"
