"""Judge a session: its verdict, and the sentence that says why.

The verdict's `state` is what to publish: the engine's claim only as long as it is proved. No
sentence says how long it is until the next try: the views have that, a sentence would be old.
"""

from dataclasses import dataclass, field, replace

from agent.core import words
from agent.core.model import PHASES, ClaimFact, Health, HealthVerdict, Override, UnitState
from agent.core.model import ConnectionStatus as Status
from agent.core.reasons import NETWORK_CODES, UNREACHABLE, Permanence, Reason, reason_of
from agent.core.reconnect import ReconnectPolicy
from agent.core.recovery import ladder, repair
from agent.core.session import AWAY, WAIT_SENTENCES, WAITS_TURN, Session
from agent.core.setting import setting
from agent.core.words import SUSPECT, Claim, SessionFiles

NOT_SOON = (Permanence.AT_TIME, Permanence.PROBE_SLOWLY)
"""Reasons with a time of their own for the next try, however far."""


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """The [health] table, with the tables that health is also judged by."""

    interval: float = setting(30.0, "seconds between two checks of an instance not at rest", low=1)
    deep: float = setting(
        120.0, "seconds between two deep checks of an engine, such as of its page", low=1
    )
    timeout: float = setting(10.0, "seconds that one check may take", low=0.1)
    zombie_pings: int = 3
    """Failed pings in a row after which a session counts as a zombie."""
    stuck: float = setting(
        30.0, "seconds in a passing state after which a session counts as stuck", low=1
    )
    proof_limit: float = 90.0
    """Seconds for which a proof of CONNECTED stays valid."""
    slow: float = setting(5.0, "seconds after which an answer counts as slow", low=0.01)
    error_rate: float = setting(
        0.10,
        "share of operations, or of HTTP requests, that fail before it is a trouble",
        low=0.001,
        high=1,
    )
    reconnect: ReconnectPolicy = field(default_factory=ReconnectPolicy)


NO_CODE_GUESS = "client_outdated"
"""The guess of an engine about a server that tries to connect without an end."""
ENDED_WITH_PASSKEY = (
    "Its account needs a passkey to link again, so the agent keeps the files as they are. "
    + reason_of(words.PASSKEY_REQUIRED).advice
)
_BY_WORSE = (Health.DEGRADED, Health.STUCK, Health.CORRUPTED)
_NETWORK_VERDICTS = frozenset(
    {"proof_old", "not_proved", "state_stuck"}
    | {f"phase_{phase}" for phase in ("loaded", "injected", "login", "sync")}
)
"""Verdicts, beside the reasons of the table, that a network which is away can cause."""


def judge_health(session: Session, policy: HealthPolicy, now: float) -> HealthVerdict:
    """Judge a session: the same facts give the same verdict; the first fitting rule decides."""
    verdict = (
        _not_wanted(session)
        or _session_files(session)
        or _hopeless_or_away(session)
        or _without_worker(session, policy, now)
        or _silent_worker(session, policy, now)
        or _by_claim(session, policy, now)
    )
    if session.wait.reason == UNREACHABLE and _is_the_networks(session, verdict):
        verdict = _waiting(session)
    if verdict.health in (Health.STUCK, Health.CORRUPTED):
        verdict = replace(verdict, should_cleanup=session.no_pairing_to_lose)
    return _with_signals(session, verdict)


def as_asked(verdict: HealthVerdict) -> HealthVerdict:
    """Return the verdict on a logout that an operator asked for: WhatsApp did not end it."""
    if "logout" not in (verdict.reason, verdict.after):
        return verdict
    title = reason_of("logout").title
    return replace(verdict, sentence=verdict.sentence.replace(title, "logged out as asked"))


# The rules, in their order.


def _not_wanted(session: Session) -> HealthVerdict | None:
    if session.should_run and not session.unit.masked:
        return None
    if session.override is Override.STOPPED:
        reason, sentence = "stopped", "an operator stopped it"
    elif session.unit.masked and session.should_run:
        reason, sentence = "masked", "an operator masked its unit"
    else:
        reason, sentence = "disabled", "disabled"
    if session.unit.runs:
        sentence += ", and the agent still has to stop its worker"
    return HealthVerdict(Health.DISCONNECTED, Status.DISCONNECTED, reason, sentence)


def _session_files(session: Session) -> HealthVerdict | None:
    """Judge files that contradict the record."""
    said = session.claim.claim.reason if session.claim else ""
    if session.folder.files is SessionFiles.DAMAGED or said == "session_damaged":
        return _corrupted(session, "session_damaged")
    ended = session.ended_by
    gone = session.folder.files is SessionFiles.ABSENT and not session.record.paired
    unknown = gone or session.folder.files is SessionFiles.UNREADABLE
    if unknown and not session.unit.runs and not session.instance.backend:
        return _corrupted(session, "session_unreadable", session.folder.problem)
    if said == SUSPECT:
        # The worker found an empty store, and left it as it is.
        return _waits_for_person(session, ended) if ended.unpairs else _corrupted(session, SUSPECT)
    if session.unit.runs or not session.record.paired or ended.unpairs:
        return None
    if session.folder.files is SessionFiles.ABSENT:
        return _corrupted(session, "session_missing", session.folder.problem)
    return _corrupted(session, SUSPECT) if session.folder.files is SessionFiles.UNPAIRED else None


def _hopeless_or_away(session: Session) -> HealthVerdict | None:
    """After a logout or a ban it is right that nothing runs or answers. While a backend is away its
    last claim about the session is worthless."""
    reason = session.ended_by
    if reason.hopeless and not session.unit.runs:
        return _waits_for_person(session, reason)
    return _waiting(session) if session.wait.reason in AWAY else None


def _without_worker(session: Session, policy: HealthPolicy, now: float) -> HealthVerdict | None:
    unit = session.unit
    if unit.state is UnitState.ACTIVE:
        return None
    if unit.state is UnitState.DEACTIVATING:
        ends = "its worker ends"
        return HealthVerdict(Health.DISCONNECTED, Status.RECONNECTING, "stopping", ends)
    if unit.state is UnitState.ACTIVATING:
        if now - unit.since >= PHASES["process"].limit:
            return _stuck_in(session, "process", now - unit.since)
        return _starting(Status.INITIALIZING, "its worker starts")
    if unit.state is UnitState.FAILED:
        return _failed(session, policy)
    ended = session.ended_by
    if held := _given_up(session, policy) or _waits_for_others(session, ended, now):
        return held
    if ended.permanence in NOT_SOON and now < session.not_before:
        # It waits on purpose, also without a worker: after a ban, or for another try of the agent.
        return _waits_its_time(ended)
    if session.turns_before is not None:
        return _not_running(WAITS_TURN, WAIT_SENTENCES[WAITS_TURN])
    here, there = "it should run and has no worker", "its server is not watched yet"
    there = unit.status_text or there  # why its last start failed
    return _not_running("not_running", there if session.instance.backend else here)


def _silent_worker(session: Session, policy: HealthPolicy, now: float) -> HealthVerdict | None:
    """Judge a worker that runs: does it report, and does its engine answer?"""
    if session.claim is None:
        who = "server" if session.instance.backend else "worker"
        silent = now - max(session.unit.since, session.run.linked_since or 0.0)
        if silent < PHASES["process"].limit:
            return _starting(Status.INITIALIZING, f"its {who} has not reported yet")
        what = "reports nothing" if session.linked else "accepts no connection"
        health = Health.STUCK if silent >= policy.stuck else Health.DEGRADED
        sentence = f"its {who} {what} for {silent:.0f} s"
        return HealthVerdict(health, Status.INITIALIZING, "phase_process", sentence)
    if (probe := session.run.probe) is not None and probe.failures >= policy.zombie_pings:
        connected = session.claim.claim.status is Status.CONNECTED
        state = Status.RECONNECTING if connected else session.claim.claim.status
        sentence = f"it does not answer: {probe.failures} pings failed in a row"
        return HealthVerdict(Health.STUCK, state, "zombie", sentence)
    return None


def _failed(session: Session, policy: HealthPolicy) -> HealthVerdict:
    unit = session.unit
    if unit.exit_status == words.MISCONFIGURED:
        return _waits_for_person(session, reason_of("misconfigured"))
    if unit.exit_status == words.FOLDER_UNUSABLE:
        # The folder was looked at before this.
        sentence = "its worker could not use a file of its folder; wa-agent logs has which, and why"
        return _not_running("not_running", sentence)
    if given_up := _given_up(session, policy):
        return given_up
    if session.wait.reason:
        return _waiting(session)
    code, failed = words.ENDS.get(unit.exit_status, ""), f"its worker failed ({unit.result})"
    sentence, code = reason_of(code).title if code else failed, code or "worker_failed"
    return HealthVerdict(Health.DEGRADED, Status.RECONNECTING, code, sentence)


def _by_claim(session: Session, policy: HealthPolicy, now: float) -> HealthVerdict:
    """Judge by the claim, which counts as far as it is proved, while its state may last."""
    fact = session.claim
    assert fact is not None
    claim = fact.claim
    if session.is_other_account:
        return _waits_for_person(session, reason_of(words.OTHER_ACCOUNT))
    if claim.status is Status.CONNECTED:
        return _connected(session, fact, policy, now)
    if claim.status is Status.QR_REQUIRED:
        return _asks_for_scan(session, claim)
    if claim.reason == words.NOT_TOLD:
        # Unknown is neither connected nor stuck: no repair could find out.
        sentence = reason_of(words.NOT_TOLD).title_with(claim.raw)
        return HealthVerdict(Health.DISCONNECTED, claim.status, words.NOT_TOLD, sentence)
    if claim.down:
        unexplained = claim.status is Status.DISCONNECTED and not claim.reason
        if unexplained and now - fact.since < policy.stuck:
            # The worker disconnected in order to connect again.
            return _starting(Status.RECONNECTING, "it reconnects")
        return _dropped(session, claim, policy, now)
    if fact.deadline is not None and now >= fact.deadline:
        return _stuck_in(session, claim.phase, now - fact.phase_since)
    if claim.phase not in PHASES and now - fact.since >= _patience(session, claim, policy):
        what, guess = _hangs(claim)
        sentence = f"{what} for {now - fact.since:.0f} s in this try"
        return HealthVerdict(Health.STUCK, claim.status, "state_stuck", sentence, guess=guess)
    doing = PHASES[claim.phase].words if claim.phase in PHASES else "on its way"
    ended = claim.reason or session.record.reason
    sentence = f"{doing}, after: {reason_of(ended).title}" if ended else doing
    return replace(_starting(claim.status, sentence), after=ended)


def _hangs(claim: Claim) -> tuple[str, str]:
    """Return a sentence about what is known, and a guess at the cause."""
    if claim.guess == NO_CODE_GUESS:
        cause = "the server may not reach WhatsApp, or WhatsApp may refuse its version"
        return "not connected" if claim.paired else "no code", f"{cause}; the server does not say"
    return str(claim.status), reason_of(claim.guess).title if claim.guess else ""


def _patience(session: Session, claim: Claim, policy: HealthPolicy) -> float:
    """An engine that reconnects by itself gets as long as a sync: a restart would slow it down. A
    server's "connecting" proves nothing, so it gets no longer."""
    by_itself = claim.status is Status.RECONNECTING and not session.instance.backend
    return PHASES["sync"].limit if by_itself else policy.stuck


def _connected(
    session: Session, fact: ClaimFact, policy: HealthPolicy, now: float
) -> HealthVerdict:
    proved_at = fact.proved_at()
    probe = session.run.probe
    if proved_at is None:
        if now - fact.since < policy.stuck:
            return _starting(Status.LOADING, "its engine claims CONNECTED, and no proof came yet")
        sentence = f"its engine claims CONNECTED for {now - fact.since:.0f} s without a proof"
        health = Health.STUCK if now - fact.since > policy.proof_limit else Health.DEGRADED
        return HealthVerdict(health, Status.LOADING, "not_proved", sentence)
    if (age := now - proved_at) > policy.proof_limit:
        sentence = f"its engine claims CONNECTED; the last proof is {age:.0f} s old"
        health = Health.STUCK if age > 2 * policy.proof_limit else Health.DEGRADED
        return HealthVerdict(health, Status.RECONNECTING, "proof_old", sentence)
    if probe is not None and probe.failures:
        sentence = f"{probe.failures} of {policy.zombie_pings} pings failed"
        return HealthVerdict(Health.DEGRADED, Status.CONNECTED, "ping_failed", sentence)
    if probe is not None and probe.ok and probe.seconds > policy.slow:
        sentence = f"it took {probe.seconds:.1f} s to answer"
        return HealthVerdict(Health.DEGRADED, Status.CONNECTED, "slow", sentence)
    return HealthVerdict(Health.HEALTHY, Status.CONNECTED, "", "connected")


def _asks_for_scan(session: Session, claim: Claim) -> HealthVerdict:
    record = session.record
    known = reason_of(claim.reason or record.reason)
    if record.paired and not known.unpairs:
        return _corrupted(session, SUSPECT)
    if record.needs_passkey:
        return _waits_for_person(session, reason_of(words.PASSKEY_REQUIRED))
    suspected = record.reason == words.PASSKEY_SUSPECTED and claim.reason in ("", "qr_idle")
    if suspected or known.code in (words.PASSKEY_REQUIRED, words.PASSKEY_SUSPECTED):
        known = reason_of(words.PASSKEY_SUSPECTED) if suspected else known
        return _waits_for_person(session, known)
    # The claim's own reason: no code is offered, or the scan alone is not enough.
    own = known.status is Status.QR_REQUIRED
    sentence = known.title if own else "it waits for a scan of its QR code"
    reason = known.code if own else "waiting_for_scan"
    return HealthVerdict(Health.DISCONNECTED, Status.QR_REQUIRED, reason, sentence)


def _dropped(session: Session, claim: Claim, policy: HealthPolicy, now: float) -> HealthVerdict:
    reason = reason_of(claim.reason)
    if reason.code == "remote_missing":
        sentence = reason.in_full(session.instance.id)
        return HealthVerdict(Health.NOT_FOUND, reason.status, reason.code, sentence)
    if reason.hopeless:
        return _waits_for_person(session, reason)
    if held := _given_up(session, policy) or _waits_for_others(session, reason, now):
        return held
    if reason.permanence in NOT_SOON:
        return _waits_its_time(reason, claim.raw)
    sentence = reason.title_with(claim.raw)
    return HealthVerdict(Health.DEGRADED, Status.RECONNECTING, reason.code, sentence)


# Verdicts that several rules end in.


def _starting(state: Status, sentence: str) -> HealthVerdict:
    """Return the verdict on a start in time: nothing is wrong, but it is not connected either."""
    return HealthVerdict(Health.DISCONNECTED, state, "starting", sentence)


def _stuck_in(session: Session, phase: str, seconds: float) -> HealthVerdict:
    if phase == "pairing" and not session.record.paired:
        code = words.PASSKEY_SUSPECTED
        sentence = f"{reason_of(code).title} ({seconds:.0f} s ago)"
        return HealthVerdict(Health.STUCK, Status.QR_REQUIRED, code, sentence)
    claim = session.claim.claim if session.claim else None
    code, sentence = f"phase_{phase}", f"stuck in phase {phase} for {seconds:.0f} s"
    if claim is not None and claim.reason == "injection_failed":
        # A changed page fails in whichever phase first needs what changed: one cause, one word.
        code, sentence = claim.reason, f"{reason_of(claim.reason).title} ({sentence})"
    # The claim of an earlier run proves nothing about a run that still starts.
    proves = claim is not None and session.unit.state is UnitState.ACTIVE
    state = claim.status if claim is not None and proves else Status.INITIALIZING
    return HealthVerdict(Health.STUCK, state, code, sentence)


def _corrupted(session: Session, code: str, more: str = "") -> HealthVerdict:
    sentence = reason_of(code).in_full(session.id, more)
    return HealthVerdict(Health.CORRUPTED, Status.AUTH_FAILURE, code, sentence)


def _waits_for_person(session: Session, reason: Reason) -> HealthVerdict:
    if reason.unpairs and session.is_guarded:
        reason = replace(reason, advice=ENDED_WITH_PASSKEY)
    sentence = reason.in_full(session.id)
    return HealthVerdict(Health.DISCONNECTED, reason.status, reason.code, sentence)


def _waits_its_time(reason: Reason, raw: str = "") -> HealthVerdict:
    """The next try has a time of its own. After a ban there is nothing to do; where the page or the
    client is refused, an operator should upgrade it."""
    health = Health.DEGRADED if reason.slow else Health.DISCONNECTED
    return HealthVerdict(health, reason.status, reason.code, reason.title_with(raw))


def _given_up(session: Session, policy: HealthPolicy) -> HealthVerdict | None:
    if not (code := session.gave_up(policy.reconnect)):
        return None
    last = session.last_reason.title
    sentence = f"{last}; the agent makes no further try"
    if code == "attempts_used_up":
        sentence = f"no success in {session.record.attempts} attempts; last: {last}"
    return HealthVerdict(Health.DEGRADED, Status.DISCONNECTED, code, sentence)


def _waits_for_others(session: Session, ended: Reason, now: float) -> HealthVerdict | None:
    """One whose own time has not come, or whose worker names a cause on this machine, waits for no
    network."""
    here = ended.local and session.unit.runs
    own_time = here or (ended.permanence in NOT_SOON and now < session.not_before)
    waits = session.wait.reason
    network = waits in ("network_down", UNREACHABLE)
    return _waiting(session) if waits and not (own_time and network) else None


def _waiting(session: Session) -> HealthVerdict:
    reason = session.wait.reason
    sentence = f"waiting: {session.wait.sentence or WAIT_SENTENCES.get(reason, reason)}"
    return HealthVerdict(Health.DISCONNECTED, Status.RECONNECTING, reason, sentence)


def _not_running(code: str, sentence: str) -> HealthVerdict:
    return HealthVerdict(Health.NOT_FOUND, Status.RECONNECTING, code, sentence)


# Additions to the verdict of the rules


def _is_the_networks(session: Session, verdict: HealthVerdict) -> bool:
    """True if an address that is away explains this verdict."""
    if verdict.reason == "starting":
        return session.waits_for_network
    at_rest = (Status.CONNECTED, Status.DISCONNECTED, Status.QR_REQUIRED)
    if verdict.health not in (Health.STUCK, Health.DEGRADED) or verdict.state in at_rest:
        return False
    return verdict.reason in NETWORK_CODES or verdict.reason in _NETWORK_VERDICTS


def _with_signals(session: Session, verdict: HealthVerdict) -> HealthVerdict:
    """Add findings beside the state: they only make a running session's verdict worse."""
    if not session.signals or verdict.state is not Status.CONNECTED:
        return verdict
    worst = max(session.signals, key=lambda signal: _BY_WORSE.index(signal.level))
    known = _BY_WORSE.index(verdict.health) if verdict.health in _BY_WORSE else -1
    if known >= _BY_WORSE.index(worst.level):
        return verdict
    return HealthVerdict(worst.level, verdict.state, worst.name, worst.detail)


def is_wanted(session: Session) -> bool:
    """True if the session should run now; one stopped by hand is enabled and not wanted."""
    return session.should_run and not session.unit.masked


def has_given_up(session: Session) -> bool:
    """True if the session should run, and the agent tries nothing until an operator acts."""
    verdict = session.verdict
    # A session that shows a code, or would on request, lacks only a scan.
    if not is_wanted(session) or session.status in (Status.CONNECTED, Status.QR_REQUIRED):
        return False
    if verdict.reason in ("attempts_used_up", "conflict_foreign_owner"):
        return True
    if ladder.needs_repair(verdict):
        # The session's ladder has begun, or begins in this pass.
        ending = session.repair.ending if session.repair is not None else repair.Ending.NOT_YET
        # Without a pairing to lose the next repair begins by itself (`unpaired_pause`).
        given_up = ending is repair.Ending.GAVE_UP and not verdict.should_cleanup
        return given_up or ending is repair.Ending.NEEDS_PERSON
    reason = reason_of(verdict.reason)
    stays_down = verdict.health is Health.DEGRADED and verdict.state is Status.DISCONNECTED
    return (stays_down and not reason.slow) or reason.hopeless
