"""A requested repair answers within its time: healthy, cleaned and recovered as they are."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from agent.core.model import ConnectionStatus, Health, HealthVerdict, Instance, SessionRecord
from agent.core.recovery.ladder import begin_repair
from agent.core.recovery.repair import Ending, Goal
from agent.core.session import NOT_LOOKED_YET, Wait
from agent.core.words import InstanceId
from agent.errors import TryLater
from agent.supervise import act
from agent.supervise.facts import Facts
from agent.supervise.orders import GOES_ON, Answer, Repairs
from tests.conftest import Eventually
from tests.fakes.supervisor import result
from tests.refused import refused

LIMIT = 0.05
ID = InstanceId("sales")
STUCK = HealthVerdict(Health.STUCK, ConnectionStatus.INITIALIZING, "state_stuck", "it hangs")


@pytest.fixture
def facts() -> Facts:
    made = Facts(Instance(ID, "evolution", True, {"backend": "evo"}), SessionRecord(paired=True))
    made.verdict, made.sentence = STUCK, STUCK.sentence
    return made


@pytest.fixture
def checked() -> asyncio.Event:
    """Set: the server answers each check."""
    event = asyncio.Event()
    event.set()
    return event


@pytest.fixture
def repairs(facts: Facts, checked: asyncio.Event, monkeypatch: pytest.MonkeyPatch) -> Repairs:
    """With the session's own facts; no pass runs, so a test plays what the repair does."""

    async def run(_: object, facts: Facts) -> None:
        await checked.wait()
        facts.verdict = STUCK if facts.verdict is NOT_LOOKED_YET else facts.verdict

    async def save(*_: object) -> None: ...

    gate = SimpleNamespace(wake=lambda _: None, fleet=SimpleNamespace(kept=save))
    registry = SimpleNamespace(get=lambda _: facts, stopping=False)
    monkeypatch.setattr("agent.supervise.passes.run_pass", run)
    parts: dict[str, Any] = {
        "means": SimpleNamespace(registry=registry, gate=gate),
        "orders": SimpleNamespace(intend=save),
    }
    return Repairs(**parts)


async def ask(repairs: Repairs, word: str, wait: float = LIMIT) -> Answer:
    if word == "cleanup":
        return await repairs.until(Goal.CLEANUP, ID, wait=wait, confirmed=True)
    return await repairs.until(
        Goal.RECOVER if word == "recover" else Goal.WORKING_QR, ID, wait=wait
    )


async def test_a_repair_whose_server_answers_no_check_is_answered_in_time_and_begun_later(
    repairs: Repairs, facts: Facts, checked: asyncio.Event, eventually: Eventually
) -> None:
    checked.clear()
    facts.verdict, facts.sentence = NOT_LOOKED_YET, "not checked yet"
    async with asyncio.timeout(60):
        found = await ask(repairs, "ensure-healthy", wait=0)
    assert found == result(False, False, False, GOES_ON, "not checked yet")
    assert facts.repair is None
    checked.set()
    await eventually(lambda: facts.repair is not None)


@pytest.mark.parametrize("word", ["cleanup", "recover"])
async def test_no_repair_of_a_session_begins_while_its_server_is_away(
    repairs: Repairs, facts: Facts, *, word: str
) -> None:
    facts.wait, facts.sentence = Wait("backend_down"), "its backend is down"
    with refused(TryLater, "backend_down", match="its backend is down"):
        await ask(repairs, word, wait=0)
    assert facts.repair is None


async def test_an_order_that_is_taken_back_meanwhile_leaves_a_pass_nothing_to_repair(
    facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look_around(*_: object) -> None:
        facts.repair = None

    monkeypatch.setattr(act, "_case_of", look_around)
    facts.repair = begin_repair(STUCK, Goal.WORKING_QR, 0.0)
    assert await act.plan_repair(SimpleNamespace(registry=None), facts, STUCK) == (None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", [Ending.GAVE_UP, Ending.RECOVERED])
async def test_a_clean_up_that_was_not_done_is_refused_with_its_cause(
    repairs: Repairs, facts: Facts, eventually: Eventually, ending: Ending
) -> None:
    asked = asyncio.create_task(ask(repairs, "cleanup"))
    await eventually(lambda: facts.repair is not None)
    facts.repair = replace(facts.repair, ending=ending, acts=3)
    facts.action.refusal = "cannot delete sales: it answers 500"
    with refused(TryLater, "cleanup_failed", match="it answers 500|it came back"):
        await asked


@pytest.mark.parametrize("unpaired", [False, True])
async def test_a_repair_that_takes_longer_than_its_limit_is_answered_and_goes_on(
    repairs: Repairs, facts: Facts, eventually: Eventually, *, unpaired: bool
) -> None:
    asked = asyncio.create_task(ask(repairs, "ensure-healthy"))
    await eventually(lambda: facts.repair is not None)
    assert facts.repair is not None
    facts.repair = replace(facts.repair, unpaired=unpaired, acts=3)
    async with asyncio.timeout(30):
        found = await asked
    assert found == result(False, unpaired, False, GOES_ON, "it hangs")
    assert not facts.repair.over
