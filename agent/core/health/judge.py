"""Judge one instance from its facts: its verdict, and the sentence that says why.

The verdict's `state` is what to publish: the engine's claim only as long as it is proved. No
sentence says how long it is until the next try: the views have that, a sentence would be old.
"""

from agent.core.health.claimed import by_claim
from agent.core.health.policy import HealthPolicy
from agent.core.model import (
    ConnectionStatus,
    Health,
    HealthVerdict,
    Observation,
    Override,
    SessionFiles,
    Signal,
    UnitState,
)
from agent.core.observed import gave_up
from agent.core.reasons import UNREACHABLE, reason_of
from agent.core.verdicts import (
    conclude,
    corrupted,
    given_up_after,
    starting,
    stuck_in,
    waits_for_person,
    waits_its_time,
)
from agent.core.waiting import (
    AWAY,
    NOT_SOON,
    WAIT_SENTENCES,
    WAITS_TURN,
    is_the_networks,
    waiting,
    waits_for_others,
)
from agent.core.words import SUSPECT

Status = ConnectionStatus

MISCONFIGURED = 78
"""A worker's exit status that a restart cannot change."""
FOLDER_UNUSABLE = 66
"""The exit status of a worker whose folder or identity file is away or unreadable."""

_BY_WORSE = (Health.DEGRADED, Health.STUCK, Health.CORRUPTED)


def judge_health(observation: Observation, policy: HealthPolicy, now: float) -> HealthVerdict:
    """The same facts always give the same verdict; the first rule that applies decides."""
    verdict = (
        _not_wanted(observation)
        or _session_files(observation)
        or _hopeless_past(observation)
        or _backend_away(observation)
        or _without_worker(observation, policy, now)
        or _silent_worker(observation, policy, now)
    )
    if verdict is None:
        assert observation.claim is not None
        verdict = by_claim(observation, observation.claim, policy, now)
        verdict = _add_disagreement(observation, verdict)
    if observation.wait_reason == UNREACHABLE and is_the_networks(observation, verdict):
        verdict = waiting(observation)
    return _add_signals(verdict, observation.signals)


def _not_wanted(observation: Observation) -> HealthVerdict | None:
    if observation.desired.should_run and not observation.unit.masked:
        return None
    if observation.desired.override is Override.STOPPED:
        reason, sentence = "stopped", "an operator stopped it"
    elif observation.unit.masked and observation.desired.should_run:
        reason, sentence = "masked", "an operator masked its unit"
    else:
        reason, sentence = "disabled", "disabled"
    if observation.unit.runs:
        sentence += ", and the agent still has to stop its worker"
    return conclude(observation, Health.DISCONNECTED, Status.DISCONNECTED, reason, sentence)


def _session_files(observation: Observation) -> HealthVerdict | None:
    """The session's files contradict the record."""
    said = observation.claim.claim.reason if observation.claim else ""
    if observation.files is SessionFiles.DAMAGED or said == "session_damaged":
        return corrupted(observation, "session_damaged")
    ended = reason_of(observation.record.reason)
    if not observation.unit.runs and _folder_is_away(observation):
        return corrupted(observation, "session_unreadable", observation.files_problem)
    if said == SUSPECT:
        # Its worker found an empty store, and left it as it is.
        if ended.unpairs:
            return waits_for_person(observation, ended)
        return corrupted(observation, SUSPECT)
    if observation.unit.runs or not observation.record.paired or ended.unpairs:
        return None
    if observation.files is SessionFiles.ABSENT:
        return corrupted(observation, "session_missing", observation.files_problem)
    if observation.files is SessionFiles.UNPAIRED:
        return corrupted(observation, "unpaired_suspect")
    return None


def _folder_is_away(observation: Observation) -> bool:
    """The session is unknown until its folder can be read. (Paired and gone: missing.)"""
    if observation.instance.backend:
        return False
    gone = observation.files is SessionFiles.ABSENT and not observation.record.paired
    return gone or observation.files is SessionFiles.UNREADABLE


def _hopeless_past(observation: Observation) -> HealthVerdict | None:
    """After a logout or a ban it is right that nothing runs or answers."""
    code = observation.record.reason
    if observation.unit.runs or not code or not reason_of(code).hopeless:
        return None
    return waits_for_person(observation, reason_of(code))


def _backend_away(observation: Observation) -> HealthVerdict | None:
    """While a backend is away its last claim about the session is worthless."""
    return waiting(observation) if observation.wait_reason in AWAY else None


def _without_worker(
    observation: Observation, policy: HealthPolicy, now: float
) -> HealthVerdict | None:
    unit = observation.unit
    if unit.state is UnitState.ACTIVE:
        return None
    if unit.state is UnitState.DEACTIVATING:
        return conclude(
            observation, Health.DISCONNECTED, Status.RECONNECTING, "stopping", "its worker ends"
        )
    if unit.state is UnitState.ACTIVATING:
        if now - unit.since >= policy.phases.process:
            return stuck_in(observation, "process", now - unit.since)
        return starting(observation, Status.INITIALIZING, "its worker starts")
    if unit.state is UnitState.FAILED:
        return _failed(observation, policy)
    if given_up := gave_up(observation, policy.reconnect):
        return given_up_after(observation, given_up)
    ended = reason_of(observation.record.reason)
    if waits_for_others(observation, ended, now):
        return waiting(observation)
    if ended.permanence in NOT_SOON and now < observation.not_before:
        # It waits on purpose, also without a worker: after a ban, or for another try of the agent.
        return waits_its_time(observation, ended)
    if observation.waits_turn:
        sentence = WAIT_SENTENCES[WAITS_TURN]
        return conclude(observation, Health.NOT_FOUND, Status.RECONNECTING, WAITS_TURN, sentence)
    here, there = "it should run and has no worker", "its server is not watched yet"
    sentence = there if observation.instance.backend else here
    return conclude(observation, Health.NOT_FOUND, Status.RECONNECTING, "not_running", sentence)


def _silent_worker(
    observation: Observation, policy: HealthPolicy, now: float
) -> HealthVerdict | None:
    """The worker's process runs: does the worker report, and does its engine answer?"""
    if observation.claim is None:
        since = max(observation.unit.since, observation.linked_since or 0.0)
        silent = now - since
        if silent < policy.phases.process:
            return starting(observation, Status.INITIALIZING, "its worker has not reported yet")
        what = (
            "its worker accepts no connection"
            if observation.linked_since is None
            else ("its worker reports nothing")
        )
        health = Health.STUCK if silent >= policy.stuck else Health.DEGRADED
        sentence = f"{what} for {silent:.0f} s"
        return conclude(observation, health, Status.INITIALIZING, "phase_process", sentence)
    probe = observation.probe
    if probe is not None and probe.failures >= policy.zombie_pings:
        connected = observation.claim.claim.status is Status.CONNECTED
        state = Status.RECONNECTING if connected else observation.claim.claim.status
        sentence = f"it does not answer: {probe.failures} pings failed in a row"
        return conclude(observation, Health.STUCK, state, "zombie", sentence)
    return None


def _failed(observation: Observation, policy: HealthPolicy) -> HealthVerdict:
    unit = observation.unit
    if unit.exit_status == MISCONFIGURED:
        return waits_for_person(observation, reason_of("misconfigured"))
    if unit.exit_status == FOLDER_UNUSABLE:
        # Its folder was looked at before this.
        sentence = "its worker could not use its folder, which is whole again"
        return conclude(observation, Health.NOT_FOUND, Status.RECONNECTING, "not_running", sentence)
    if given_up := gave_up(observation, policy.reconnect):
        return given_up_after(observation, given_up)
    if observation.wait_reason:
        return waiting(observation)
    sentence = f"its worker failed ({unit.result})"
    return conclude(observation, Health.DEGRADED, Status.RECONNECTING, "worker_failed", sentence)


def _add_disagreement(observation: Observation, verdict: HealthVerdict) -> HealthVerdict:
    """The server's own list contradicts the session. The published state stays what the session
    itself proves: an outdated list must not make a connected session look disconnected."""
    disagrees = observation.probe.disagrees if observation.probe is not None else ""
    if not disagrees or not (verdict.healthy or verdict.reason == "starting"):
        return verdict
    sentence = f"{reason_of('remote_disagrees').title}: {disagrees}"
    return conclude(observation, Health.CORRUPTED, verdict.state, "remote_disagrees", sentence)


def _add_signals(verdict: HealthVerdict, signals: tuple[Signal, ...]) -> HealthVerdict:
    """A finding beside the state can only make a running session's verdict worse."""
    if not signals or verdict.state is not Status.CONNECTED:
        return verdict
    worst = max(signals, key=lambda signal: _BY_WORSE.index(signal.level))
    if verdict.health in _BY_WORSE and (
        _BY_WORSE.index(verdict.health) >= _BY_WORSE.index(worst.level)
    ):
        return verdict
    return HealthVerdict(worst.level, verdict.state, worst.name, worst.detail)
