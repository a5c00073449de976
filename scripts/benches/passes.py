"""The deciding of one pass over 10,000 instances: judge, decide, plan; nothing but the core."""

import gc
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version

from agent.core.health.judge import judge_health
from agent.core.health.policy import HealthPolicy
from agent.core.model import (
    Claim,
    ClaimFact,
    ConnectionStatus,
    Desired,
    Instance,
    InstanceId,
    Observation,
    ProbeFact,
    SessionFiles,
    SessionRecord,
    UnitState,
    UnitStatus,
)
from agent.core.reconcile import next_deadline, plan_actions
from agent.core.recovery.beginning import begin_repair, wants_repair
from agent.core.recovery.policy import RecoveryPolicy
from agent.core.recovery.repair import Case, Circumstances, Goal
from agent.core.recovery.steps import step_repair
from scripts.benches import report
from scripts.benches.machine import this_machine

INSTANCES = 10_000
NOW, WALL = 100_000.0, 1_700_000_000.0
CALM = Circumstances()
Status = ConnectionStatus


def measure(*, quick: bool = False) -> report.Report:
    rounds = 3 if quick else 7
    limit = report.Goal("", 1.0)
    rows = [
        report.Row(
            f"{INSTANCES:,} observations, {share:.0%} in trouble",
            "s of CPU",
            {report.OURS: [_one_pass(fleet(share)) for _ in range(rounds)]},
            limit,
        )
        for share in (0.0, 0.1, 1.0)
    ]
    notes = [
        "Each: judge_health, plan_actions, next_deadline; a repair begun and stepped where due."
    ]
    names = {report.OURS: version("wa-agent")}
    return report.Report("pass", this_machine(), names, rows, notes)


def fleet(trouble: float) -> list[Observation]:
    """The same every time; troubles in equal shares, scattered."""
    dice = random.Random(7)
    return [
        dice.choice(TROUBLES) if dice.random() < trouble else replace(WELL, at=NOW - dice.random())
        for _ in range(INSTANCES)
    ]


def decide_all(observations: Sequence[Observation]) -> dict[str, int]:
    """What one pass over all of them decides, counted by its words."""
    policy, recovery = HealthPolicy(), RecoveryPolicy()
    decided: dict[str, int] = {}
    for observation in observations:
        verdict = judge_health(observation, policy, NOW)
        words = [str(verdict.health)]
        repair = None
        if wants_repair(verdict, None, recovery, WALL):
            case = Case(observation, verdict, CALM, recovery, WALL)
            repair, action = step_repair(case, begin_repair(verdict, Goal.HEAL, WALL))
            words.append(f"step {action.kind}")
        plan = plan_actions(observation, verdict, policy, NOW, repair=repair)
        words += [f"plan {plan.name}"] if plan is not None else []
        next_deadline(observation, verdict, policy, NOW)
        for word in words:
            decided[word] = decided.get(word, 0) + 1
    return decided


def _one_pass(observations: Sequence[Observation]) -> float:
    gc.collect()
    begun = time.process_time()
    decide_all(observations)
    return time.process_time() - begun


def _said(status: Status, ago: float = 500.0, **claim: object) -> ClaimFact:
    found = Claim(status, paired=True)
    found = replace(found, **claim)  # type: ignore[arg-type]
    return ClaimFact(found, at=NOW, since=NOW - ago, phase_since=NOW - ago)


WELL = Observation(
    instance=Instance(InstanceId("sales"), "evolution", True),
    desired=Desired(True),
    record=SessionRecord(paired=True),
    unit=UnitStatus(UnitState.ACTIVE, run="r1", main_pid=9, since=NOW - 1000),
    at=NOW,
    at_wall=WALL,
    linked_since=NOW - 999,
    claim=_said(Status.CONNECTED, proof_age=1.0),
    probe=ProbeFact(True, NOW - 5, 0.1),
    files=SessionFiles.WHOLE,
)

TROUBLES = (
    replace(WELL, probe=ProbeFact(False, NOW - 5, 10.0, 3, "no answer")),
    replace(WELL, probe=ProbeFact(True, NOW - 5, 9.0)),
    replace(WELL, claim=_said(Status.CONNECTED, proof_age=400.0)),
    replace(WELL, claim=_said(Status.LOADING, phase="loaded")),
    replace(WELL, claim=_said(Status.DISCONNECTED, reason="connection_lost")),
    replace(WELL, claim=_said(Status.DISCONNECTED, reason="conflict"), not_before=NOW + 5),
    replace(WELL, files=SessionFiles.DAMAGED),
    replace(
        WELL,
        unit=UnitStatus(UnitState.FAILED, result="signal", since=NOW - 9),
        claim=None,
        probe=None,
        linked_since=None,
    ),
    replace(
        WELL,
        unit=UnitStatus(UnitState.INACTIVE, since=NOW - 9),
        claim=None,
        probe=None,
        linked_since=None,
    ),
)
