"""What a session says of its past and its pairing; health and passes use it."""

from dataclasses import replace

from agent.core.model import (
    Claim,
    ConnectionStatus,
    Health,
    HealthVerdict,
    Instance,
    SessionFiles,
    SessionRecord,
    UnitState,
)
from agent.core.reasons import NETWORK_CODES, UNREACHABLE, Permanence, Reason, reason_of
from agent.core.reconnect import ReconnectPolicy
from agent.core.session import Session
from agent.core.words import PASSKEY_SUSPECTED

Status = ConnectionStatus

_ON_ITS_WAY = (Status.INITIALIZING, Status.LOADING)


def no_pairing_to_lose(session: Session) -> bool:
    """True when a new start costs no scan that is not due anyway."""
    if reason_of(last_reason(session)).unpairs:
        return True
    return not may_be_paired(session)


def is_other_account(instance: Instance, record: SessionRecord, claim: Claim) -> bool:
    """Whether the session that its backend has is not the one that was paired here. Programs
    address an instance by its id: it stays the account that it is, until its pairing ends."""
    paired = record.paired and not reason_of(record.reason).unpairs
    known = instance.backend and record.account and claim.paired and claim.account
    return bool(paired and known) and claim.account != record.account


def is_guarded(session: Session) -> bool:
    """Whether only a person may end the pairing: its account needs a passkey for another one. An
    end that an engine or a server reports does not lift this: such a report can be wrong."""
    return session.record.needs_passkey and may_be_paired(session)


def may_be_paired(session: Session) -> bool:
    fact = session.claim
    claimed = fact is not None and (fact.claim.paired or fact.claim.pairing_unknown)
    return session.record.paired or claimed or session.folder.files is SessionFiles.WHOLE


def last_reason(session: Session) -> str:
    """Why the session is not connected: the engine's present word, else the recorded one."""
    if session.claim is not None and session.claim.claim.reason:
        return session.claim.claim.reason
    return session.record.reason


def ended_for_good(session: Session) -> bool:
    """Whether WhatsApp ended it with a word after which no login happens by itself."""
    code = last_reason(session)
    return bool(code) and reason_of(code).final


def waits_for_network(session: Session) -> bool:
    """Whether its engine connects by itself, waits for an answer, or names the network."""
    if session.claim is None or not session.unit.runs:
        return False
    claim = session.claim.claim
    by_itself = claim.status is Status.RECONNECTING
    asks = claim.phase == "loaded" or claim.reason in NETWORK_CODES
    return by_itself or (claim.status in _ON_ITS_WAY and asks)


def gave_up(session: Session, policy: ReconnectPolicy) -> str:
    """The code for which the agent ended its tries; "" while it goes on trying."""
    record = session.record
    reason = reason_of(last_reason(session)) if last_reason(session) else None
    if reason is not None and reason.hopeless:
        return reason.code
    if reason is not None and reason.tries is not None and record.strikes > reason.tries:
        return "conflict_foreign_owner" if reason.code == "conflict" else reason.code
    if reason is not None and (reason.endless or reason.slow):
        # A load of the page harms no account: it may wait for any time.
        return ""
    return "attempts_used_up" if record.attempts >= policy.attempts else ""


# Verdicts that several rules of health end in.


ENDED_WITH_PASSKEY = (
    "Its account needs a passkey to link again, so the agent keeps the files as they are. To link"
    " it at a desk: `wa-agent pair --out FILE` there, then `wa-agent import FILE ID --replace"
    " --enable` here."
)


def as_asked(verdict: HealthVerdict) -> HealthVerdict:
    """An operator asked for the logout of this verdict; WhatsApp and the phone did not end it."""
    if "logout" not in (verdict.reason, verdict.after):
        return verdict
    title = reason_of("logout").title
    return replace(verdict, sentence=verdict.sentence.replace(title, "logged out as asked"))


def conclude(
    session: Session, health: Health, state: Status, reason: str, sentence: str
) -> HealthVerdict:
    repairable = health in (Health.STUCK, Health.CORRUPTED)
    return HealthVerdict(
        health, state, reason, sentence, repairable and no_pairing_to_lose(session)
    )


def starting(session: Session, state: Status, sentence: str) -> HealthVerdict:
    """In time: nothing is wrong and nothing need be done, but it is not connected either."""
    return conclude(session, Health.DISCONNECTED, state, "starting", sentence)


def stuck_in(session: Session, phase: str, seconds: float) -> HealthVerdict:
    running = session.unit.state is UnitState.ACTIVE
    # The claim of an earlier run proves nothing about a run that still starts.
    claim = session.claim if running else None
    state = Status.INITIALIZING if claim is None else claim.claim.status
    if phase == "pairing" and not session.record.paired:
        code = PASSKEY_SUSPECTED
        sentence = f"{reason_of(code).title} ({seconds:.0f} s ago)"
        return conclude(session, Health.STUCK, Status.QR_REQUIRED, code, sentence)
    sentence = f"stuck in phase {phase} for {seconds:.0f} s"
    code = session.claim.claim.reason if session.claim else ""
    if code == "injection_failed":
        # A changed page fails in whichever phase first needs what changed: one cause, one word.
        sentence = f"{reason_of(code).title} ({sentence})"
        return conclude(session, Health.STUCK, state, code, sentence)
    return conclude(session, Health.STUCK, state, f"phase_{phase}", sentence)


def corrupted(session: Session, code: str, more: str = "") -> HealthVerdict:
    sentence = reason_of(code).in_full(session.instance.id, more)
    return conclude(session, Health.CORRUPTED, Status.AUTH_FAILURE, code, sentence)


def waits_for_person(session: Session, reason: Reason) -> HealthVerdict:
    if reason.unpairs and is_guarded(session):
        reason = replace(reason, advice=ENDED_WITH_PASSKEY)
    whose = session.folder.problem if reason.code == "session_foreign" else ""
    sentence = reason.in_full(session.instance.id, whose)
    return conclude(session, Health.DISCONNECTED, reason.status, reason.code, sentence)


def waits_its_time(session: Session, reason: Reason, raw: str = "") -> HealthVerdict:
    """Its next try has a time of its own: after a ban nothing is to be done; where the page or the
    client is refused, an operator should upgrade it."""
    health = Health.DEGRADED if reason.slow else Health.DISCONNECTED
    return conclude(session, health, reason.status, reason.code, reason.title_with(raw))


def given_up_after(session: Session, code: str) -> HealthVerdict:
    last = reason_of(last_reason(session)).title
    if code == "attempts_used_up":
        sentence = f"no success in {session.record.attempts} attempts; last: {last}"
    else:
        sentence = f"{last}; the agent makes no further try"
    return conclude(session, Health.DEGRADED, Status.DISCONNECTED, code, sentence)


# Why an instance waits for something other than itself, and whether that explains its state.


BACKEND_DOWN = "backend_down"
BACKEND_UNCHECKED = "backend_unchecked"
WAITS_TURN = "waits_turn"
AWAY = frozenset({BACKEND_DOWN, BACKEND_UNCHECKED, "backend_missing"})
"""Wait reasons that leave the session's own state unknown."""
GONE = AWAY - {BACKEND_UNCHECKED}
"""Of them, those that may last for any time."""

WAIT_SENTENCES = {
    BACKEND_DOWN: "its backend is down",
    BACKEND_UNCHECKED: "the agent has not checked its backend yet",
    WAITS_TURN: "its turn to start has not come",
    "backend_circuit": "its backend left several checks or requests in a row without an answer;"
    " one session tries first",
    "backend_missing": "agent.toml declares no [[backend]] of the name in its settings",
    UNREACHABLE: "this machine cannot reach the address that the session needs",
    "network_down": "many sessions lost their connection at once; one of them tries first",
    "incident": "many instances of its engine fail the same way; one of them tries first",
    "memory_full": "the machine has too little memory for one more worker",
    "disk_full": "the disk of the sessions has too little free space",
}
"""Wait reasons; a wait costs the instance no attempt."""

NOT_SOON = (Permanence.AT_TIME, Permanence.PROBE_SLOWLY)
"""Reasons with a time of their own for the next try, however far."""

_NETWORK_VERDICTS = frozenset(
    {"proof_old", "not_proved", "state_stuck"}
    | {f"phase_{phase}" for phase in ("loaded", "injected", "login", "sync")}
)
"""What a worker reports of a network that is away, beside the reasons of the table."""

_AT_REST = (Status.CONNECTED, Status.DISCONNECTED, Status.QR_REQUIRED)


def waits_for_others(session: Session, ended: Reason, now: float) -> bool:
    """Whether it waits; one whose own time has not come waits for no network."""
    own_time = ended.permanence in NOT_SOON and now < session.not_before
    return bool(session.wait.reason) and not (
        own_time and session.wait.reason in ("network_down", UNREACHABLE)
    )


def is_the_networks(session: Session, verdict: HealthVerdict) -> bool:
    """Whether an address that is away explains this verdict."""
    if verdict.reason == "starting":
        return waits_for_network(session)
    if verdict.health not in (Health.STUCK, Health.DEGRADED) or verdict.state in _AT_REST:
        return False
    return verdict.reason in NETWORK_CODES or verdict.reason in _NETWORK_VERDICTS


def waiting(session: Session) -> HealthVerdict:
    known = session.wait.sentence or WAIT_SENTENCES.get(session.wait.reason, session.wait.reason)
    sentence = f"waiting: {known}"
    state = Status.RECONNECTING
    return conclude(session, Health.DISCONNECTED, state, session.wait.reason, sentence)


def shown_wait(session: Session) -> dict[str, str]:
    """How the API says why a session waits: only where it would be tried otherwise."""
    reason, verdict = session.wait.reason, session.verdict
    ended = reason_of(verdict.reason)
    idle = verdict.health in (Health.HEALTHY, Health.DISCONNECTED)
    # disabled, stopped: a start was ordered, and no pass has run since
    waits = verdict.reason in (reason, "disabled", "stopped")
    if not session.desired.should_run or not (waits or not (idle or ended.hopeless or ended.slow)):
        reason = ""
    sentence = session.wait.sentence or WAIT_SENTENCES.get(reason, reason)
    return {"wait_reason": reason, "wait_sentence": sentence}
