"""The sessions that a backend's worker holds: told again in time, each one's faults its own."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from agent.core.model import Claim, ConnectionStatus, InstanceId
from agent.errors import ConfigError, WaError
from agent.worker import reports as reports_module
from agent.worker.backend import sessions as held_module
from agent.worker.backend.sessions import HeldSessions

UP = Claim(ConnectionStatus.CONNECTED, proof_age=0.0)
IDS = [InstanceId(f"s{number}") for number in range(90)]


class Clock:
    """The held sessions' own: it moves when they sleep."""

    now = 1000.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class Server:
    """Stands where the link's server stands."""

    def __init__(self, clock: Clock) -> None:
        self.told: list[tuple[float, str]] = []
        self._clock = clock

    def claim(self, id: InstanceId, _claim: Claim) -> None:
        self.told.append((self._clock.now, id))


class Engine:
    def __init__(self, backend: "Backend", id: str) -> None:
        self.backend, self.id = backend, id

    async def prepare_stop(self) -> None:
        self.backend.done["prepare"] += 1

    async def save(self) -> None:
        if self.id in self.backend.bad:
            raise RuntimeError("its disk is full")
        self.backend.done["save"] += 1


class Backend:
    def __init__(self) -> None:
        self.reporters: dict[str, Any] = {}
        self.done: Counter[str] = Counter()
        self.bad: set[str] = set()

    def hold(self, id: InstanceId, settings: Mapping[str, Any], reporter: Any) -> Engine:
        if settings.get("remote") == "impossible":
            raise ConfigError("cannot use that remote")
        if settings.get("remote") == "surprising":
            raise KeyError("x")
        self.done["hold"] += 1
        self.reporters[id] = reporter
        return Engine(self, id)

    def release(self, id: InstanceId) -> None:
        self.done["release"] += 1
        if id in self.bad:
            raise KeyError(id)

    async def close(self) -> None:
        self.done["close"] += 1


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (held_module, reports_module):
        monkeypatch.setattr(module, "boot_now", lambda: clock.now)
    sleeping = SimpleNamespace(**{**vars(asyncio), "sleep": clock.sleep})
    monkeypatch.setattr(held_module, "asyncio", sleeping)
    return clock


@pytest.fixture
def server(clock: Clock) -> Server:
    return Server(clock)


@pytest.fixture
async def held(backend: Backend, server: Server) -> HeldSessions:
    held = HeldSessions(backend, asyncio.Event())  # type: ignore[arg-type]
    held.attach(server)  # type: ignore[arg-type]
    held.hold_all({id: {"remote": ""} for id in IDS})
    return held


async def test_every_claim_is_reported_again_in_time_and_spread_out(
    held: HeldSessions, backend: Backend, server: Server, clock: Clock
) -> None:
    for id in IDS[:60]:
        backend.reporters[id].claim(UP)
    begun = clock.now
    server.told.clear()
    clock.now += 0.5
    task = asyncio.create_task(held.repeat(60.0))
    answered = held.sessions[IDS[0]].reports
    while len({id for _, id in server.told}) < 59:
        answered.answered(UP)  # the agent asks this one all the time
        assert clock.now - begun < 60.0
        await asyncio.sleep(0)
    task.cancel()
    assert {id for _, id in server.told} == set(IDS[1:60])
    busiest = Counter(at for at, _ in server.told).most_common(1)[0][1]
    assert busiest <= 2


async def test_a_session_that_broke_is_watched_again_after_a_pause(
    held: HeldSessions, backend: Backend, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_module, "HOLD_AGAIN", 0.05)
    before = held.sessions[IDS[3]]
    backend.reporters[IDS[3]].crashed(RuntimeError("lost"))
    backend.reporters[IDS[3]].crashed(RuntimeError("lost twice"))
    backend.reporters[IDS[4]].crashed(RuntimeError("lost"))
    held.release(IDS[4])
    assert held.sessions[IDS[3]] is before
    await eventually(lambda: held.sessions[IDS[3]] is not before)
    with pytest.raises(AssertionError):  # once, though it was told twice
        await eventually(lambda: backend.done["hold"] > len(IDS) + 1, within=0.2)
    assert backend.done == {"hold": len(IDS) + 1, "release": 2}
    assert held.sessions[IDS[3]].settings == {"remote": ""} and IDS[4] not in held.sessions


async def test_a_session_that_the_worker_cannot_hold_is_left_out(
    held: HeldSessions, caplog: Any
) -> None:
    odd = {InstanceId("x1"): {"remote": "impossible"}, InstanceId("x2"): {"remote": "surprising"}}
    held.hold_all({**odd, InstanceId("x3"): {}})
    assert set(held.sessions) == {*IDS, "x3"}
    assert "cannot hold x1" in caplog.text and "cannot hold x2" in caplog.text


async def test_the_end_saves_and_releases_all_whatever_one_of_them_does(
    held: HeldSessions, backend: Backend
) -> None:
    backend.bad = {IDS[5], IDS[7]}
    await held.prepare_stop()
    with pytest.raises(WaError, match="cannot save 2 of 90 sessions"):
        await held.save()
    await held.close()
    assert backend.done == {"hold": 90, "prepare": 90, "save": 88, "release": 90, "close": 1}
    assert held.sessions == {}
