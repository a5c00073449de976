"""Judge one instance from its facts: its verdict, and the sentence that says why.

The verdict's `state` is what to publish: the engine's claim only as long as it is proved. No
sentence says how long it is until the next try: the views have that, a sentence would be old.
"""

from dataclasses import replace

from agent.core.health.policy import HealthPolicy
from agent.core.model import (
    Claim,
    ClaimFact,
    ConnectionStatus,
    Health,
    HealthVerdict,
    Override,
    SessionFiles,
    Signal,
    UnitState,
)
from agent.core.observed import (
    AWAY,
    NOT_SOON,
    WAIT_SENTENCES,
    WAITS_TURN,
    conclude,
    corrupted,
    gave_up,
    given_up_after,
    is_other_account,
    is_the_networks,
    starting,
    stuck_in,
    waiting,
    waits_for_others,
    waits_for_person,
    waits_its_time,
)
from agent.core.phases import IN_WORDS, overdue_phase
from agent.core.reasons import UNREACHABLE, reason_of
from agent.core.session import Session
from agent.core.words import NOT_TOLD, OTHER_ACCOUNT, PASSKEY_REQUIRED, PASSKEY_SUSPECTED, SUSPECT

# Judge a session by what its worker claims: a claim counts as far as it is proved, and for as long
# as its state may last.


Status = ConnectionStatus

NO_CODE_GUESS = "client_outdated"
"""What an engine guesses of a server that tries to connect without an end."""


def by_claim(session: Session, fact: ClaimFact, policy: HealthPolicy, now: float) -> HealthVerdict:
    claim = fact.claim
    if is_other_account(session.instance, session.record, claim):
        return waits_for_person(session, reason_of(OTHER_ACCOUNT))
    if claim.status is Status.CONNECTED:
        return _connected(session, fact, policy, now)
    if claim.status is Status.QR_REQUIRED:
        return _asks_for_scan(session, claim)
    if claim.reason == NOT_TOLD:
        # Unknown is neither connected nor stuck: no repair could find out.
        sentence = reason_of(NOT_TOLD).title_with(claim.raw)
        return conclude(session, Health.DISCONNECTED, claim.status, NOT_TOLD, sentence)
    if claim.status in (Status.DISCONNECTED, Status.AUTH_FAILURE):
        if (
            not claim.reason
            and claim.status is Status.DISCONNECTED
            and (now - fact.since < policy.stuck)
        ):
            # No reason: the worker disconnected in order to connect again.
            return starting(session, Status.RECONNECTING, "it reconnects")
        return _dropped(session, claim, policy, now)
    if phase := overdue_phase(fact, now, policy.phases):
        return stuck_in(session, phase, now - fact.phase_since)
    unnamed = policy.phases.limit(claim.phase) is None
    if unnamed and now - fact.since >= _patience(session, claim, policy):
        what, guess = _hangs(claim)
        sentence = f"{what} for {now - fact.since:.0f} s"
        stuck = conclude(session, Health.STUCK, claim.status, "state_stuck", sentence)
        return replace(stuck, guess=guess)
    doing = IN_WORDS.get(claim.phase, "on its way")
    ended = claim.reason or session.record.reason
    sentence = f"{doing}, after: {reason_of(ended).title}" if ended else doing
    return replace(starting(session, claim.status, sentence), after=ended)


def _hangs(claim: Claim) -> tuple[str, str]:
    """What is known; and what its cause may be."""
    if claim.guess == NO_CODE_GUESS:
        cause = "the server may not reach WhatsApp, or WhatsApp may refuse its version"
        return "not connected" if claim.paired else "no code", f"{cause}; the server does not say"
    return str(claim.status), reason_of(claim.guess).title if claim.guess else ""


def _patience(session: Session, claim: Claim, policy: HealthPolicy) -> float:
    """An engine that reconnects by itself gets as long as a sync: a restart would slow it down. A
    server's "connecting" proves nothing, so it gets no longer."""
    by_itself = claim.status is Status.RECONNECTING and not session.instance.backend
    return policy.phases.sync if by_itself else policy.stuck


def _connected(
    session: Session, fact: ClaimFact, policy: HealthPolicy, now: float
) -> HealthVerdict:
    proved_at = fact.proved_at()
    probe = session.run.probe
    if proved_at is None:
        if now - fact.since < policy.stuck:
            return starting(
                session, Status.LOADING, "its engine claims CONNECTED, and no proof came yet"
            )
        sentence = f"its engine claims CONNECTED for {now - fact.since:.0f} s without a proof"
        health = Health.STUCK if now - fact.since > policy.proof_limit else Health.DEGRADED
        return conclude(session, health, Status.LOADING, "not_proved", sentence)
    if (age := now - proved_at) > policy.proof_limit:
        sentence = f"its engine claims CONNECTED; the last proof is {age:.0f} s old"
        health = Health.STUCK if age > 2 * policy.proof_limit else Health.DEGRADED
        return conclude(session, health, Status.RECONNECTING, "proof_old", sentence)
    if probe is not None and probe.failures:
        sentence = f"{probe.failures} of {policy.zombie_pings} pings failed"
        return conclude(session, Health.DEGRADED, Status.CONNECTED, "ping_failed", sentence)
    if probe is not None and probe.ok and probe.seconds > policy.slow:
        sentence = f"it took {probe.seconds:.1f} s to answer"
        return conclude(session, Health.DEGRADED, Status.CONNECTED, "slow", sentence)
    return conclude(session, Health.HEALTHY, Status.CONNECTED, "", "connected")


def _asks_for_scan(session: Session, claim: Claim) -> HealthVerdict:
    record = session.record
    known = reason_of(claim.reason or record.reason)
    if record.paired and not known.unpairs:
        return corrupted(session, "unpaired_suspect")
    if record.needs_passkey:
        return waits_for_person(session, reason_of(PASSKEY_REQUIRED))
    suspected = record.reason == PASSKEY_SUSPECTED and claim.reason in ("", "qr_idle")
    if suspected or known.code in (PASSKEY_REQUIRED, PASSKEY_SUSPECTED):
        return waits_for_person(session, reason_of(PASSKEY_SUSPECTED) if suspected else known)
    # The claim's own reason: no code is offered, or the scan alone is not enough.
    own = known.status is Status.QR_REQUIRED
    sentence = known.title if own else "it waits for a scan of its QR code"
    reason = known.code if own else "waiting_for_scan"
    return conclude(session, Health.DISCONNECTED, Status.QR_REQUIRED, reason, sentence)


def _dropped(session: Session, claim: Claim, policy: HealthPolicy, now: float) -> HealthVerdict:
    reason = reason_of(claim.reason)
    if reason.code == "remote_missing":
        sentence = reason.in_full(session.instance.id)
        return conclude(session, Health.NOT_FOUND, reason.status, reason.code, sentence)
    if reason.hopeless:
        return waits_for_person(session, reason)
    if given_up := gave_up(session, policy.reconnect):
        return given_up_after(session, given_up)
    if waits_for_others(session, reason, now):
        return waiting(session)
    if reason.permanence in NOT_SOON:
        return waits_its_time(session, reason, claim.raw)
    sentence = reason.title_with(claim.raw)
    return conclude(session, Health.DEGRADED, Status.RECONNECTING, reason.code, sentence)


MISCONFIGURED = 78
"""A worker's exit status that a restart cannot change."""
FOLDER_UNUSABLE = 66
"""The exit status of a worker whose folder or identity file is away or unreadable."""

_BY_WORSE = (Health.DEGRADED, Health.STUCK, Health.CORRUPTED)


def judge_health(session: Session, policy: HealthPolicy, now: float) -> HealthVerdict:
    """The same facts always give the same verdict; the first rule that applies decides."""
    verdict = (
        _not_wanted(session)
        or _session_files(session)
        or _hopeless_past(session)
        or _backend_away(session)
        or _without_worker(session, policy, now)
        or _silent_worker(session, policy, now)
    )
    if verdict is None:
        assert session.claim is not None
        verdict = by_claim(session, session.claim, policy, now)
        verdict = _add_disagreement(session, verdict)
    if session.wait.reason == UNREACHABLE and is_the_networks(session, verdict):
        verdict = waiting(session)
    return _add_signals(verdict, session.signals)


def _not_wanted(session: Session) -> HealthVerdict | None:
    if session.desired.should_run and not session.unit.masked:
        return None
    if session.desired.override is Override.STOPPED:
        reason, sentence = "stopped", "an operator stopped it"
    elif session.unit.masked and session.desired.should_run:
        reason, sentence = "masked", "an operator masked its unit"
    else:
        reason, sentence = "disabled", "disabled"
    if session.unit.runs:
        sentence += ", and the agent still has to stop its worker"
    return conclude(session, Health.DISCONNECTED, Status.DISCONNECTED, reason, sentence)


def _session_files(session: Session) -> HealthVerdict | None:
    """The session's files contradict the record."""
    said = session.claim.claim.reason if session.claim else ""
    if session.folder.files is SessionFiles.DAMAGED or said == "session_damaged":
        return corrupted(session, "session_damaged")
    ended = reason_of(session.record.reason)
    if not session.unit.runs and _folder_is_away(session):
        return corrupted(session, "session_unreadable", session.folder.problem)
    if said == SUSPECT:
        # Its worker found an empty store, and left it as it is.
        if ended.unpairs:
            return waits_for_person(session, ended)
        return corrupted(session, SUSPECT)
    if session.unit.runs or not session.record.paired or ended.unpairs:
        return None
    if session.folder.files is SessionFiles.ABSENT:
        return corrupted(session, "session_missing", session.folder.problem)
    if session.folder.files is SessionFiles.UNPAIRED:
        return corrupted(session, "unpaired_suspect")
    return None


def _folder_is_away(session: Session) -> bool:
    """The session is unknown until its folder can be read. (Paired and gone: missing.)"""
    if session.instance.backend:
        return False
    gone = session.folder.files is SessionFiles.ABSENT and not session.record.paired
    return gone or session.folder.files is SessionFiles.UNREADABLE


def _hopeless_past(session: Session) -> HealthVerdict | None:
    """After a logout or a ban it is right that nothing runs or answers."""
    code = session.record.reason
    if session.unit.runs or not code or not reason_of(code).hopeless:
        return None
    return waits_for_person(session, reason_of(code))


def _backend_away(session: Session) -> HealthVerdict | None:
    """While a backend is away its last claim about the session is worthless."""
    return waiting(session) if session.wait.reason in AWAY else None


def _without_worker(session: Session, policy: HealthPolicy, now: float) -> HealthVerdict | None:
    unit = session.unit
    if unit.state is UnitState.ACTIVE:
        return None
    if unit.state is UnitState.DEACTIVATING:
        return conclude(
            session, Health.DISCONNECTED, Status.RECONNECTING, "stopping", "its worker ends"
        )
    if unit.state is UnitState.ACTIVATING:
        if now - unit.since >= policy.phases.process:
            return stuck_in(session, "process", now - unit.since)
        return starting(session, Status.INITIALIZING, "its worker starts")
    if unit.state is UnitState.FAILED:
        return _failed(session, policy)
    if given_up := gave_up(session, policy.reconnect):
        return given_up_after(session, given_up)
    ended = reason_of(session.record.reason)
    if waits_for_others(session, ended, now):
        return waiting(session)
    if ended.permanence in NOT_SOON and now < session.not_before:
        # It waits on purpose, also without a worker: after a ban, or for another try of the agent.
        return waits_its_time(session, ended)
    if session.turns_before is not None:
        sentence = WAIT_SENTENCES[WAITS_TURN]
        return conclude(session, Health.NOT_FOUND, Status.RECONNECTING, WAITS_TURN, sentence)
    here, there = "it should run and has no worker", "its server is not watched yet"
    sentence = there if session.instance.backend else here
    return conclude(session, Health.NOT_FOUND, Status.RECONNECTING, "not_running", sentence)


def _silent_worker(session: Session, policy: HealthPolicy, now: float) -> HealthVerdict | None:
    """The worker's process runs: does the worker report, and does its engine answer?"""
    if session.claim is None:
        since = max(session.unit.since, session.run.linked_since or 0.0)
        silent = now - since
        if silent < policy.phases.process:
            return starting(session, Status.INITIALIZING, "its worker has not reported yet")
        what = (
            "its worker accepts no connection"
            if session.run.linked_since is None
            else ("its worker reports nothing")
        )
        health = Health.STUCK if silent >= policy.stuck else Health.DEGRADED
        sentence = f"{what} for {silent:.0f} s"
        return conclude(session, health, Status.INITIALIZING, "phase_process", sentence)
    probe = session.run.probe
    if probe is not None and probe.failures >= policy.zombie_pings:
        connected = session.claim.claim.status is Status.CONNECTED
        state = Status.RECONNECTING if connected else session.claim.claim.status
        sentence = f"it does not answer: {probe.failures} pings failed in a row"
        return conclude(session, Health.STUCK, state, "zombie", sentence)
    return None


def _failed(session: Session, policy: HealthPolicy) -> HealthVerdict:
    unit = session.unit
    if unit.exit_status == MISCONFIGURED:
        return waits_for_person(session, reason_of("misconfigured"))
    if unit.exit_status == FOLDER_UNUSABLE:
        # Its folder was looked at before this.
        sentence = "its worker could not use its folder, which is whole again"
        return conclude(session, Health.NOT_FOUND, Status.RECONNECTING, "not_running", sentence)
    if given_up := gave_up(session, policy.reconnect):
        return given_up_after(session, given_up)
    if session.wait.reason:
        return waiting(session)
    sentence = f"its worker failed ({unit.result})"
    return conclude(session, Health.DEGRADED, Status.RECONNECTING, "worker_failed", sentence)


def _add_disagreement(session: Session, verdict: HealthVerdict) -> HealthVerdict:
    """The server's own list contradicts the session. The published state stays what the session
    itself proves: an outdated list must not make a connected session look disconnected."""
    disagrees = session.run.probe.disagrees if session.run.probe is not None else ""
    if not disagrees or not (verdict.healthy or verdict.reason == "starting"):
        return verdict
    sentence = f"{reason_of('remote_disagrees').title}: {disagrees}"
    return conclude(session, Health.CORRUPTED, verdict.state, "remote_disagrees", sentence)


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
