"""A backend's circuit breaker: what opens it, whose call is its trial, what closes it."""

import asyncio
from types import SimpleNamespace

import pytest

from agent.backends import backend as module
from agent.backends.backend import Circuit
from agent.backends.http import ServerDown
from agent.core.breaker import BreakerPolicy, BreakerState
from agent.core.model import InstanceId
from agent.errors import EngineError, LinkError

A, B = InstanceId("a"), InstanceId("b")
CLOSED, OPEN, HALF_OPEN = BreakerState
DOWN = ServerDown("connect", "timeout", "no answer within 10 s")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "boot_now", clock)
    return clock


def made(told=None):
    told = [] if told is None else told
    shared = SimpleNamespace(breaker=lambda: BreakerPolicy(3, 600.0))
    return Circuit(SimpleNamespace(shared=shared, circuit_changed=told.append))


async def act(circuit, id=A, error=None, do="connect"):
    async def call():
        if error is not None:
            raise error
        return {}

    try:
        return await circuit.act(id, do, call)
    except (EngineError, LinkError) as caught:
        return caught.code


async def opened(circuit=None, **how):
    circuit = circuit or made(**how)
    for id in (A, B, A):
        await act(circuit, id, DOWN)
    assert circuit.state is OPEN
    return circuit


async def test_three_sessions_calls_in_a_row_open_it_for_all(clock):
    told = []
    circuit = made(told)
    await act(circuit, A, DOWN)
    await act(circuit, B, ServerDown("connect", "failing", "it answers 502"))
    assert (circuit.state, circuit.lets(A)) == (CLOSED, True)
    await act(circuit, A, DOWN)
    assert (circuit.state, told) == (OPEN, [OPEN])
    assert "open for at most 600 s more after 3 failures" in circuit.sentence
    assert not circuit.lets(A) and not circuit.lets(B)
    assert await act(circuit, B) == "circuit_open"
    assert await act(circuit, B, do="probe") == {}, "looking is free"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EngineError("cannot connect: it is not there", code="remote_missing"), "remote_missing"),
        (LinkError("cannot connect: the link is closed", code="gone"), "gone"),
        (ServerDown("connect", "unreachable", "refused", reached=False), "backend_down"),
    ],
)
async def test_what_says_nothing_of_the_server_opens_no_circuit(clock, error, code):
    circuit = made()
    for _ in range(9):
        assert await act(circuit, A, error) == code
    assert (circuit.state, circuit.breaker.failures) == (CLOSED, 0)


async def test_after_its_pause_one_session_tries_for_all(clock):
    told = []
    circuit = await opened(told=told)
    clock.now += 599.9
    assert not circuit.begin(A)
    clock.now += 0.1
    assert circuit.state is HALF_OPEN
    assert circuit.lets(A) and circuit.lets(B)
    assert circuit.begin(B)
    assert (circuit.state, circuit.lets(A), circuit.lets(B)) == (HALF_OPEN, False, True)
    assert await act(circuit, A) == "circuit_open"
    assert await act(circuit, B) == {}
    assert (circuit.state, circuit.sentence, told) == (CLOSED, "", [OPEN, CLOSED])


async def test_a_trial_that_is_broken_off_leaves_the_turn_to_another(clock):
    circuit = await opened()
    clock.now += 600

    async def call():
        await asyncio.Event().wait()

    task = asyncio.create_task(circuit.act(A, "connect", call))
    await asyncio.sleep(0)
    assert (circuit.trial, circuit.lets(B)) == (A, False)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (circuit.trial, circuit.state, circuit.begin(B)) == (None, HALF_OPEN, True)


async def test_after_a_quick_check_one_session_tries_for_all(clock):
    circuit = await opened(made(told := []))
    for seconds, answered in ((29.9, 0.1), (0.1, 1.1)):
        clock.now += seconds
        circuit.checked(answered)
        assert (circuit.state, circuit.lets(A)) == (OPEN, False), "calls may still run out of time"
    circuit.checked(1.0)
    assert (circuit.state, told) == (HALF_OPEN, [OPEN, HALF_OPEN])
    assert circuit.begin(B)
    assert (circuit.lets(A), circuit.lets(B)) == (False, True)
