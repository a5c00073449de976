"""How often a server is asked, and when its worker gets no ping."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent.core.model import ServerClaim
from agent.errors import EngineError
from agent.worker.backend import server_checks
from agent.worker.backend.server_checks import ServerChecks

WELL = ServerClaim(True, version="2.3.7")
DEAD = ServerClaim(False, "failing", "nobody listens")

Step = ServerClaim | BaseException | Callable[[], Awaitable[ServerClaim]]


class ScriptedBackend:
    """Its check does one step after the other, then the last one for ever."""

    def __init__(self, *steps: Step, opening: BaseException | None = None) -> None:
        self.steps = list(steps)
        self.at: list[float] = []
        self._opening = opening

    async def open(self) -> None:
        if self._opening is not None:
            raise self._opening

    async def check(self) -> ServerClaim:
        self.at.append(asyncio.get_running_loop().time())
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, BaseException):
            raise step
        return await step() if callable(step) else step

    def gaps(self) -> list[float]:
        return [after - before for before, after in zip(self.at, self.at[1:], strict=False)]


class Pings:
    def __init__(self) -> None:
        self.count = 0

    def send(self, *assignments: str) -> bool:
        self.count += assignments == ("WATCHDOG=1",)
        return True


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {
        "WHILE_UP": 0.1,
        "LONGEST": 0.4,
        "SAME": 0.05,
        "WHILE_AWAY": 0.05,
        "OPENING": 0.3,
    }.items():
        monkeypatch.setattr(server_checks, name, seconds)


@contextlib.asynccontextmanager
async def checked(backend: ScriptedBackend, limit: float = 5.0):
    told: list[ServerClaim] = []
    pings = Pings()
    checks = ServerChecks(backend, told.append, limit)  # type: ignore[arg-type]
    tasks = [
        asyncio.create_task(checks.run()),
        asyncio.create_task(checks.ping(pings, 0.1)),  # type: ignore[arg-type]
    ]
    try:
        yield checks, told, pings
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def for_ever() -> ServerClaim:
    await asyncio.sleep(600)
    return WELL


async def deaf() -> ServerClaim:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(600)
    await asyncio.sleep(600)
    return WELL


async def test_every_check_of_a_server_that_is_up_is_reported(eventually: Any) -> None:
    backend = ScriptedBackend(WELL)
    async with checked(backend) as (checks, told, _):
        await eventually(lambda: len(told) >= 4)
        assert set(told) == {WELL} and checks.status_text() == "server up (2.3.7)"
    assert [claim.next_check for claim in told] == [server_checks.WHILE_UP] * len(told)


async def test_a_server_that_is_down_is_asked_less_and_less_often(eventually: Any) -> None:
    backend = ScriptedBackend(DEAD)
    async with checked(backend) as (checks, told, pings):
        await eventually(lambda: len(backend.at) >= 7)
        waits = [claim.next_check for claim in told]
        assert waits[0] < waits[1] < waits[2] < waits[3] and waits[-1] == server_checks.LONGEST
        assert all(gap >= wait for gap, wait in zip(backend.gaps(), waits, strict=False))
        assert checks.status_text() == "server down (failing)"
        await eventually(lambda: pings.count > 20)


async def test_a_server_that_cannot_be_reached_is_looked_at_as_often_all_the_time(
    eventually: Any,
) -> None:
    """All of its sessions wait for this look: an outage must not cost the longest delay."""
    backend = ScriptedBackend(WELL, ServerClaim(False, "unreachable", "connection refused"))
    async with checked(backend) as (_, told, _):
        await eventually(lambda: len(backend.at) >= 12)
    assert max(claim.next_check for claim in told[1:] if claim.next_check) <= 0.05


async def test_a_claim_that_comes_by_two_ways_is_reported_once() -> None:
    told: list[ServerClaim] = []
    checks = ServerChecks(ScriptedBackend(WELL), told.append, 1.0)  # type: ignore[arg-type]
    for claim in (WELL, WELL, DEAD, DEAD, WELL):
        checks.heard(claim)
    assert told == [WELL, DEAD, WELL]


@pytest.mark.parametrize("hang", [deaf], ids=["hangs and is deaf"])
async def test_a_check_that_never_comes_back_costs_the_ping(
    hang: Callable[[], Awaitable[ServerClaim]],
    eventually: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with checked(ScriptedBackend(WELL, hang), limit=0.2) as (checks, _, pings):
        await eventually(lambda: checks.hangs)
        await eventually(lambda: "no ping" in caplog.text)
        count = pings.count
        with pytest.raises(AssertionError):  # ten times the watchdog's time
            await eventually(lambda: pings.count > count, within=1.0)
        assert checks.hangs


async def test_a_check_that_comes_back_after_one_that_hung_ends_the_silence(
    eventually: Any,
) -> None:
    comes_back = asyncio.Event()

    async def later() -> ServerClaim:
        await comes_back.wait()
        return WELL

    async with checked(ScriptedBackend(WELL, for_ever, later), limit=0.2) as (checks, told, pings):
        await eventually(lambda: checks.hangs)
        comes_back.set()
        await eventually(lambda: checks.hangs, False)
        count = pings.count
        await eventually(lambda: pings.count > count)
        assert told[-1] == WELL


@pytest.mark.parametrize("error", [KeyError("secret")])
async def test_a_check_that_breaks_is_an_answer(error: Exception, eventually: Any) -> None:
    async with checked(ScriptedBackend(error)) as (checks, told, pings):
        await eventually(lambda: len(told) >= 2)
        assert told[-1].reason == "garbage" and "secret" not in told[-1].sentence
        assert not checks.hangs and pings.count


async def test_a_backend_that_cannot_be_opened_is_still_asked(eventually: Any) -> None:
    backend = ScriptedBackend(WELL, opening=EngineError("cannot watch: no websocket"))
    async with checked(backend) as (_, told, _):
        await eventually(lambda: told[-1:], [WELL])
