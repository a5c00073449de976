"""Plan what to do about one instance: what is wanted against what is there, and when to look again.
Nothing here counts a try or a drop: the pass does (supervise/passes.py, record.py)."""

from dataclasses import dataclass
from enum import StrEnum

from agent.core import health, reasons, words
from agent.core.model import PHASES, Health, HealthVerdict, SessionFiles, UnitState, UnitStatus
from agent.core.model import ConnectionStatus as Status
from agent.core.recovery.pairing import may_end_pairing
from agent.core.recovery.repair import Consent, Ground, Proof, Repair, Stage, Trouble
from agent.core.session import WAITS_TURN, Session


class ActionKind(StrEnum):
    """The actions on a session; a plan names them in order."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    CONNECT = "connect"
    DISCONNECT = "disconnect"
    SET_ASIDE = "set_aside"
    """Retire the session's files to the trash and lay out an empty folder."""
    RESTORE = "restore"
    """Put the newest good snapshot in the place of the session's files."""
    BACK_UP = "back_up"
    REGENERATE_KEYS = "regenerate_keys"
    LOGOUT = "logout"
    RENEW = "renew"
    """The backend's server gives the pairing up and makes the session again."""


ENDS_PAIRING = {ActionKind.SET_ASIDE, ActionKind.RESTORE, ActionKind.LOGOUT, ActionKind.RENEW}
"""Actions whose plan must have a proof."""
_STARTS = frozenset({ActionKind.START, ActionKind.RESTART, ActionKind.RENEW})


@dataclass(frozen=True, slots=True)
class Plan:
    """The actions of one pass in order, and the reason; the journal has the plan by its name."""

    name: str
    actions: tuple[ActionKind, ...]
    reason: str
    repair: Repair | None = None
    """The repair of which the plan is a step, as it stands once the step has begun."""
    ordered: bool = False
    """True if an operator ordered the plan: it waits for no turn and costs no attempt."""
    proof: Proof | None = None
    """Why the pairing, or the files that hold it, may come to an end (recovery/pairing.py)."""

    def __post_init__(self) -> None:
        ends = not ENDS_PAIRING.isdisjoint(self.actions)
        assert not ends or self.proof is not None, f"{self.name} has no proof"

    @property
    def starts(self) -> bool:
        """True if the plan begins a worker, or a session on a server, again."""
        return not _STARTS.isdisjoint(self.actions)

    @property
    def logs_in(self) -> bool:
        """True if the plan makes the session log in: it waits for its turn, and is an attempt."""
        return self.starts or ActionKind.CONNECT in self.actions


@dataclass(frozen=True, slots=True)
class Outcome:
    ok: bool
    seconds: float
    detail: str = ""
    refusal: str = ""
    """The code with which the session or its server refused the plan; "" = neither did."""
    made: str = ""
    """The name of the backup, or of what lies in the trash."""


OWN_TIME = 2.0
"""Seconds that an engine which connects by itself gets after its address is back."""

FOLDER_AWAY = ("session_missing", "session_unreadable")
LOOK_AGAIN = 1.0
"""Seconds between two looks for a folder that is away: its session starts at once when it
is back."""


def plan_actions(
    session: Session, verdict: HealthVerdict, policy: health.HealthPolicy, now: float
) -> Plan | None:
    """A start, a stop, a reconnect, or None while a job is under way or the time has not come. The
    ladder handles stuck sessions."""
    unit = session.unit
    if unit.job_pending or unit.masked or unit.state is UnitState.DEACTIVATING:
        return None
    if not session.should_run:
        return _plan(ActionKind.STOP, verdict) if unit.runs else None
    if session.repairing is not None and _leaves_alone(session.repairing, unit):
        return None
    # A worker that crashed, or that a boot of the machine starts, would log in again.
    ended, waits = session.last_reason.final or session.banned, session.wait.reason
    ended = ended and not session.instance.backend
    if unit.runs and (ended or verdict.reason == words.SUSPECT or waits == words.SAME_DEVICE):
        # Any plan but a stop could overwrite the only copy of a suspect's old pairing.
        return _plan(ActionKind.STOP, verdict)
    if not may_try_now(session, policy, now):
        return None
    if not unit.runs:
        damaged = verdict.health is Health.CORRUPTED or session.folder.files is SessionFiles.DAMAGED
        wrong = unit.state is UnitState.FAILED and unit.exit_status == words.MISCONFIGURED
        return None if damaged or wrong else _plan(ActionKind.START, verdict)
    return None if verdict.health is Health.STUCK else _plan_reconnect(session, verdict)


def plan_asked(session: Session, verdict: HealthVerdict, *, restart_for: str) -> Plan | None:
    """The plan that neither the ladder nor reconnecting makes: a logout's end, an ordered restart.
    `restart_for`: why the agent itself wants a graceful restart; "" = it does not."""
    unit, record = session.unit, session.record
    if not session.should_run or unit.job_pending:
        return None
    if must_renew(session):
        proof = may_end_pairing(session, Consent.NONE, Proof(Ground.ENDED))
        if isinstance(proof, Proof):
            does = (ActionKind.STOP, ActionKind.SET_ASIDE)
            return Plan("renew", does, verdict.sentence, proof=proof)
    # Each agent names the runs on a backend by itself.
    same_run = record.restart_of == unit.run or (session.instance.backend and unit.runs)
    if record.restart_of and same_run:
        why = "an operator asked for a restart"
        return Plan("restart", (ActionKind.RESTART,), why, ordered=True)
    if restart_for:
        return Plan("restart", (ActionKind.RESTART,), restart_for)
    asked = "its folder is back" if session.folder.back else "an operator asked for a start"
    if record.start_asked and unit.state is UnitState.FAILED:
        # A wrong configuration is not tried again by itself; an operator may have corrected it.
        return Plan("start", (ActionKind.START,), asked)
    down = session.claim is not None and session.claim.claim.down
    if record.start_asked and unit.runs and down and session.last_reason.hopeless:
        # After its last word the agent makes no try by itself.
        again = ActionKind.CONNECT if session.instance.backend else ActionKind.RESTART
        return Plan(again.value, (again,), asked)
    return None


def must_renew(session: Session) -> bool:
    """True if the phone ended the pairing: the files are evidence, a scan makes a new session."""
    record = session.record
    said = session.claim.claim.reason if session.claim else record.reason
    paired = session.should_run and record.paired
    # A worker begun since says that it found its store unpaired.
    ended = said in (record.reason, words.SUSPECT) and reasons.reason_of(record.reason).scan_again
    return paired and ended


def may_try_now(session: Session, policy: health.HealthPolicy, now: float) -> bool:
    """True if reason, attempts, delay and circuit let the agent start or reconnect the session."""
    if session.wait.reason or now < session.not_before or session.gave_up(policy.reconnect):
        return False
    return session.record.breaker.may_try(session.wall(now), policy.reconnect.breaker)


def next_deadline(
    session: Session, verdict: HealthVerdict, policy: health.HealthPolicy, now: float
) -> float | None:
    """Boot time of the next look at this instance at the latest; None: at the next event."""
    if not session.should_run and not session.unit.runs:
        return None
    within = LOOK_AGAIN if verdict.reason in FOLDER_AWAY else policy.interval
    # Why a machine has no lease changes, and wakes nothing.
    again = session.wait.again if session.wait.reason == words.NO_LEASE else 0.0
    moments = [now + within, again, *_deadlines(session, policy, now)]
    return min(moment for moment in moments if moment > now)


def _leaves_alone(repair: Repair, unit: UnitStatus) -> bool:
    """While a step works, and while a suspect is given its longer time, no other plan acts. A
    suspect that is due may be stopped; only its ladder starts it."""
    if repair.trouble is not Trouble.SUSPECT:
        return repair.stage is Stage.ACTING
    return repair.stage is not Stage.DUE or not unit.runs


def _plan(kind: ActionKind, verdict: HealthVerdict) -> Plan:
    # A verdict is of before the gate was asked, and the plan is carried out once it lets go.
    turn = "its turn to start has come" if verdict.reason == WAITS_TURN else ""
    return Plan(kind.value, (kind,), turn or verdict.sentence)


def _plan_reconnect(session: Session, verdict: HealthVerdict) -> Plan | None:
    if session.claim is None or session.run.linked_since is None:
        return None
    status, fresh = session.claim.claim.status, False
    if _is_slow_to_return(session):
        # A load that began before its network went waits for an answer that was lost.
        fresh = status is not Status.RECONNECTING
    elif status is not Status.DISCONNECTED or verdict.reason in ("starting", words.OTHER_ACCOUNT):
        return None
    # A linked worker has its folder's lock: the agent may reconnect the session.
    fresh = fresh or session.last_reason.fresh_worker
    return _plan(ActionKind.RESTART if fresh else ActionKind.CONNECT, verdict)


def _is_slow_to_return(session: Session) -> bool:
    """True if the address is back and the engine waits on, for a time of its own or an answer."""
    fact, back_at = session.claim, session.back_at
    if fact is None or back_at is None or not session.waits_for_network:
        return False
    return max(fact.since, fact.phase_since, fact.progress_since) < back_at <= session.at - OWN_TIME


def _deadlines(session: Session, policy: health.HealthPolicy, now: float) -> list[float]:
    unit, fact, moments = session.unit, session.claim, [session.not_before]
    if wait := session.record.breaker.trial_in(session.wall(now), policy.reconnect.breaker):
        moments.append(now + wait)
    if unit.state is UnitState.ACTIVATING:
        moments.append(unit.since + PHASES["process"].limit)
    if fact is None:
        silent_since = max(unit.since, session.run.linked_since or 0.0)
        moments += [silent_since + PHASES["process"].limit, silent_since + policy.stuck]
        return moments
    if (deadline := fact.deadline) is not None:
        moments.append(deadline)
    if session.back_at is not None:
        moments.append(session.back_at + OWN_TIME)
    proved_at = fact.proved_at() if fact.claim.status is Status.CONNECTED else None
    if proved_at is None:
        return [*moments, fact.since + policy.stuck]
    # "Older than" must be true at the look: a little past the limit.
    return moments + [proved_at + policy.proof_limit * times + 0.001 for times in (1, 2)]
