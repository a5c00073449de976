"""The worker's part in the chain of watchdogs, with an engine that does what a test asks."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from agent.core.words import Claim, ConnectionStatus, InstanceId
from agent.engines.base import ProbeAnswer
from agent.errors import EngineError
from agent.worker import stop
from agent.worker.reports import Pairing, Reports
from agent.worker.watch import watch_engine

WATCHDOG = 30.0
UP = Claim(ConnectionStatus.CONNECTED, proof_age=0.0, paired=True)


class Notices:
    """Stands where the notifier stands."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.told: list[Claim] = []

    @property
    def pings(self) -> int:
        return self.sent.count("WATCHDOG=1")

    def send(self, *assignments: str) -> bool:
        self.sent.extend(assignments)
        return True


def made_reports() -> Reports:
    return Reports(InstanceId("a"), asyncio.Event(), lambda _error: None, Pairing(False))


class ScriptedEngine:
    """Answers, is slow, refuses or breaks, step by step."""

    def __init__(self, **how: Any) -> None:
        self.how = how
        self.done: list[str] = []
        self.asked = 0

    async def _do(self, name: str) -> None:
        self.asked += 1
        what = self.how.get(name)
        if isinstance(what, int | float):
            await asyncio.sleep(what)
        elif isinstance(what, BaseException):
            raise what
        elif callable(what):
            await what()
        self.done.append(name)

    async def probe(self, *, deep: bool = False) -> ProbeAnswer:
        await self._do("probe")
        return ProbeAnswer(self.how.get("finds", UP), {})

    async def prepare_stop(self) -> None:
        await self._do("prepare_stop")

    async def save(self) -> None:
        await self._do("save")

    async def close(self) -> None:
        await self._do("close")


@contextlib.asynccontextmanager
async def watched(engine: ScriptedEngine) -> AsyncIterator[Notices]:
    notices, reports = Notices(), made_reports()
    reports.claim(UP)
    reports.server = SimpleNamespace(claim=notices.told.append)  # type: ignore[assignment]
    watching = watch_engine(engine, reports, notices, WATCHDOG)  # type: ignore[arg-type]
    task = asyncio.create_task(watching)
    yield notices
    assert not task.done(), "the watch never ends by itself"
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_every_answer_is_a_ping_and_nothing_more(eventually: Any) -> None:
    async with watched(ScriptedEngine()) as notices:
        await eventually(lambda: notices.pings >= 3)
        assert set(notices.sent) == {"WATCHDOG=1"}, "each word wakes the manager"
        assert notices.told == [], "and each claim the agent"


@pytest.mark.parametrize(
    ("how", "alive"),
    [
        pytest.param({"probe": EngineError("no answer")}, True, id="a dead socket"),
        pytest.param({"probe": 60.0}, False, id="hang"),
        pytest.param({"probe": RuntimeError("x")}, False, id="broken"),
        pytest.param({"probe": 6.0}, True, id="slow"),
        pytest.param({"finds": replace(UP, paired=False)}, True, id="a page that lied"),
    ],
)
async def test_f08_the_agent_hears_what_the_worker_finds_and_its_manager_of_life(
    how: Mapping[str, Any], alive: bool, eventually: Any
) -> None:
    async with watched(engine := ScriptedEngine(**how)) as notices:
        await eventually(lambda: notices.told and (notices.pings if alive else engine.asked > 2))
    assert notices.told[0] == how.get("finds", UP) and bool(notices.pings) is alive


async def test_the_watch_pings_again_once_the_engine_answers_again(
    caplog: pytest.LogCaptureFixture, eventually: Any
) -> None:
    engine = ScriptedEngine(probe=60.0)
    caplog.set_level("INFO")
    async with watched(engine) as notices:
        await eventually(lambda: "no ping" in caplog.text)
        assert notices.sent == []
        engine.how = {}
        await eventually(lambda: notices.pings >= 2)
    told = [record.message for record in caplog.records if "engine" in record.message]
    assert told == ["the engine does not answer: no ping", "the engine answers again"]


async def stopped(engine: Any, reports: Reports, **how: Any) -> tuple[bool, list[str]]:
    notices: Any = Notices()
    hurry = how.get("hurry", asyncio.Event())
    return await stop.stop_in_order(engine, reports, notices, hurry), notices.sent


async def test_a_stop_prepares_saves_and_closes_in_this_order() -> None:
    engine = ScriptedEngine()
    ok, sent = await stopped(engine, made_reports())
    assert ok and engine.done == ["prepare_stop", "save", "close"]
    assert sent[0] == "STOPPING=1"


@pytest.mark.parametrize("step", ["prepare_stop", "save", "close"])
async def test_a_step_that_fails_or_hangs_does_not_keep_the_next_from_its_turn(step: str) -> None:
    engine = ScriptedEngine(**{step: 60.0})
    ok, _ = await stopped(engine, made_reports())
    assert engine.done == [each for each in ("prepare_stop", "save", "close") if each != step]
    assert ok is (step == "prepare_stop")


async def test_a_save_that_goes_on_may_take_longer_and_one_that_stands_may_not() -> None:
    reports = made_reports()

    async def slow_but_moving() -> None:
        for _ in range(10):
            await asyncio.sleep(5.0)
            reports.progress()

    engine = ScriptedEngine(save=slow_but_moving)
    ok, sent = await stopped(engine, reports)
    assert ok and "save" in engine.done and "EXTEND_TIMEOUT_USEC=25000000" in sent

    ok, sent = await stopped(ScriptedEngine(save=60.0), made_reports())
    assert not ok and not any(each.startswith("EXTEND") for each in sent)


async def test_a_hurry_cuts_the_waiting_but_not_the_saving() -> None:
    engine = ScriptedEngine(prepare_stop=60.0, save=15.0, close=60.0)
    hurry = asyncio.Event()
    hurry.set()
    async with asyncio.timeout(16.0):
        await stopped(engine, made_reports(), hurry=hurry)
    assert engine.done == ["save"]
