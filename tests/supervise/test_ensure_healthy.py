"""What a requested repair answers, within its limit: healthy, cleaned and recovered as they are."""

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from agent.core.model import (
    ConnectionStatus,
    Health,
    HealthVerdict,
    Instance,
    InstanceId,
    SessionRecord,
)
from agent.core.recovery.repair import Ending, begin_repair
from agent.supervise.facts import Facts
from agent.supervise.requests.repairs import GOES_ON, RepairResult, Repairs
from tests.conftest import Eventually
from tests.waiting import Pauses

LIMIT = 0.6
ID = InstanceId("sales")
STUCK = HealthVerdict(Health.STUCK, ConnectionStatus.INITIALIZING, "state_stuck", "it hangs")


@pytest.fixture
def facts() -> Facts:
    made = Facts(Instance(ID, "evolution", True, {"backend": "evo"}), SessionRecord(paired=True))
    made.verdict, made.sentence = STUCK, STUCK.sentence
    return made


@pytest.fixture
def repairs(facts: Facts) -> Repairs:
    """With the session's own facts; no pass runs, so a test plays what the repair does."""

    def request(facts: Facts, goal: Any, consent: Any) -> None:
        facts.repair.last = begin_repair(STUCK, goal, time.time(), consent)

    async def check_now(ids: list[InstanceId]) -> dict[InstanceId, HealthVerdict]:
        assert facts.verdict is not None
        return dict.fromkeys(ids, facts.verdict)

    async def save(*_: object) -> None: ...

    parts: dict[str, Any] = {
        "registry": SimpleNamespace(get=lambda _: facts, save=save),
        "host": SimpleNamespace(boot_id=lambda: "boot"),
        "ladder": SimpleNamespace(request=request),
        "incidents": SimpleNamespace(),
        "checking": SimpleNamespace(check_now=check_now),
        "wake": lambda _: None,
    }
    return Repairs(**parts, limit=LIMIT)


async def ask(repairs: Repairs, word: str) -> RepairResult:
    if word == "cleanup":
        return await repairs.cleanup_corrupted(ID, confirmed=True)
    return await repairs.ensure_healthy(ID)


@pytest.mark.parametrize("word", ["ensure-healthy", "cleanup"])
@pytest.mark.parametrize("unpaired", [False, True])
async def test_a_repair_that_takes_longer_than_its_limit_is_answered_and_goes_on(
    repairs: Repairs,
    facts: Facts,
    eventually: Eventually,
    *,
    pauses: Pauses,
    word: str,
    unpaired: bool,
) -> None:
    begun = time.monotonic()
    asked = asyncio.create_task(ask(repairs, word))
    await eventually(lambda: facts.repair.waiters is not None)
    assert facts.repair.last is not None
    facts.repair.last = replace(facts.repair.last, unpaired=unpaired, acts=3)
    async with asyncio.timeout(30):
        found = await asked
    assert LIMIT <= time.monotonic() - begun < LIMIT + 2 + pauses.total
    assert found == RepairResult(False, unpaired, False, GOES_ON, "it hangs")
    assert not facts.repair.last.over


@pytest.mark.parametrize(
    ("ending", "done", "answer"),
    [
        (Ending.RECOVERED, {"acts": 1}, (True, False, True)),
        (Ending.RECOVERED, {"acts": 0}, (True, False, False)),
        (Ending.CLEANED, {"acts": 2, "cleaned": True}, (True, True, False)),
        (Ending.CLEANED, {"acts": 1, "unpaired": True}, (True, True, False)),
        (Ending.GAVE_UP, {"acts": 3}, (False, False, False)),
        (Ending.GAVE_UP, {"acts": 3, "cleaned": True}, (False, True, False)),
        (Ending.NEEDS_PERSON, {"acts": 1}, (False, False, False)),
    ],
)
async def test_an_answer_is_true_to_what_the_repair_did(
    repairs: Repairs,
    facts: Facts,
    eventually: Eventually,
    *,
    ending: Ending,
    done: dict[str, Any],
    answer: tuple[bool, bool, bool],
) -> None:
    asked = asyncio.create_task(ask(repairs, "ensure-healthy"))
    await eventually(lambda: facts.repair.waiters is not None)
    assert facts.repair.last is not None
    facts.repair.last = replace(facts.repair.last, ending=ending, **done)
    facts.repair_ended()
    sentence = "" if answer[0] else "it hangs"
    assert await asked == RepairResult(*answer, ending, sentence)
