"""Facts for the tests of the core: an instance that is well, and what differs from it."""

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from agent.core.breaker import Breaker
from agent.core.health import HealthPolicy, judge_health
from agent.core.model import (
    PHASES,
    ClaimFact,
    ConnectionStatus,
    Instance,
    InstanceId,
    Override,
    ProbeFact,
    SessionFiles,
    SessionRecord,
    UnitState,
    UnitStatus,
)
from agent.core.reasons import REASONS
from agent.core.recovery.pairing import Case, RecoveryPolicy
from agent.core.session import Session
from agent.core.words import Claim
from tests.sessions import BOOT, Desired, changed

NOW = 100_000.0
WALL = 1_700_000_000.0

OFF = Desired(False)
PAIRED = SessionRecord(paired=True)


def unit(state: UnitState = UnitState.ACTIVE, **changes: Any) -> UnitStatus:
    return UnitStatus(state, run="r1", main_pid=9, since=NOW - 1000, **changes)


def said(
    status: ConnectionStatus = ConnectionStatus.CONNECTED, *, ago: float = 500.0, **claim: Any
) -> ClaimFact:
    if status is ConnectionStatus.CONNECTED:
        claim.setdefault("proof_age", 1.0)
    claim.setdefault("paired", status is ConnectionStatus.CONNECTED)
    return ClaimFact(Claim(status, **claim), at=NOW, since=NOW - ago, phase_since=NOW - ago)


_WELL = changed(
    Session(Instance(InstanceId("sales"), "sandbox", True), PAIRED, unit()),
    boot=BOOT,
    at=NOW,
    at_wall=WALL,
    linked_since=NOW - 999,
    claim=said(),
    probe=ProbeFact(True, NOW - 5, 0.1),
    files=SessionFiles.WHOLE,
)


def seen(**changes: Any) -> Session:
    """A paired, enabled instance that is connected and answers, but for `changes`."""
    return changed(_WELL, **changes)


def without_worker(state: UnitState = UnitState.INACTIVE, **changes: Any) -> Session:
    unit_changes = {
        name: changes.pop(name)
        for name in ("result", "exit_status", "status_text", "job_pending", "masked")
        if name in changes
    }
    return seen(
        unit=unit(state, **unit_changes), linked_since=None, claim=None, probe=None, **changes
    )


_moments = st.floats(0, 3 * NOW, allow_nan=False)
_walls = st.floats(0, 3 * WALL, allow_nan=False)
_codes = st.sampled_from(["", "no_such_code", *REASONS])

records = st.builds(
    SessionRecord,
    status=st.sampled_from(ConnectionStatus),
    status_since_wall=_walls,
    reason=_codes,
    attempts=st.integers(0, 40),
    not_before_wall=_walls,
    flaps=st.integers(0, 100),
    strikes=st.integers(0, 5),
    breaker=st.builds(Breaker, st.integers(0, 10), st.none() | _walls, st.none() | _walls),
    paired=st.booleans(),
    needs_passkey=st.booleans(),
)
claims = st.builds(
    ClaimFact,
    claim=st.builds(
        Claim,
        status=st.sampled_from(ConnectionStatus),
        reason=_codes,
        phase=st.sampled_from(["", "odd", *PHASES]),
        proof_age=st.one_of(st.none(), st.floats(0, 1000)),
        paired=st.booleans(),
    ),
    at=_moments,
    since=_moments,
    phase_since=_moments,
    progress_since=_moments,
)
units = st.builds(
    UnitStatus,
    state=st.sampled_from(UnitState),
    exit_status=st.sampled_from([0, 1, 75, 78]),
    job_pending=st.booleans(),
    masked=st.booleans(),
    since=_moments,
)
observations = st.builds(
    seen,
    instance=st.just(Instance(InstanceId("sales"), "sandbox", True)),
    desired=st.builds(Desired, st.booleans(), st.sampled_from(Override)),
    record=records,
    unit=units,
    at=_moments,
    at_wall=_walls,
    linked_since=st.one_of(st.none(), _moments),
    claim=st.one_of(st.none(), claims),
    probe=st.one_of(
        st.none(),
        st.builds(
            ProbeFact,
            ok=st.booleans(),
            at=_moments,
            seconds=st.floats(0, 20),
            failures=st.integers(0, 5),
        ),
    ),
    files=st.sampled_from(SessionFiles),
    not_before=_moments,
)


def surroundings(**more):
    """A Case of what is around a session; `case_of` puts its session and verdict in."""
    return Case(None, None, RecoveryPolicy(), WALL, **more)


def case_of(observation, around=None, policy=None, wall=WALL):
    verdict = judge_health(observation, HealthPolicy(), NOW)
    made = replace(around or surroundings(), session=observation, verdict=verdict, now_wall=wall)
    return replace(made, policy=policy or made.policy)
