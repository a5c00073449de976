"""What an observation says of a session's past and pairing; health and passes use it."""

from dataclasses import replace
from typing import Protocol

from agent.core.model import (
    Claim,
    ClaimFact,
    ConnectionStatus,
    Desired,
    Health,
    HealthVerdict,
    Instance,
    Observation,
    Override,
    SessionFiles,
    SessionRecord,
    UnitState,
)
from agent.core.reasons import NETWORK_CODES, UNREACHABLE, Permanence, Reason, reason_of
from agent.core.reconnect import ReconnectPolicy
from agent.core.words import PASSKEY_SUSPECTED

Status = ConnectionStatus

_ON_ITS_WAY = (Status.INITIALIZING, Status.LOADING)


class MayBePaired(Protocol):
    """What tells whether there is a pairing; an Observation does."""

    @property
    def record(self) -> SessionRecord: ...
    @property
    def claim(self) -> ClaimFact | None: ...
    @property
    def files(self) -> SessionFiles: ...


def desired_in(boot: str, instance: Instance, record: SessionRecord, by_operator: bool) -> Desired:
    """An operator's override is void in another boot of the machine."""
    override = record.override if record.override_boot == boot else Override.NONE
    return Desired(instance.enabled or by_operator, override)


def no_pairing_to_lose(session: MayBePaired) -> bool:
    """True when a new start costs no scan that is not due anyway."""
    if reason_of(last_reason(session)).unpairs:
        return True
    return not _may_lose(session)


def is_other_account(instance: Instance, record: SessionRecord, claim: Claim) -> bool:
    """Whether the session that its backend has is not the one that was paired here. Programs
    address an instance by its id: it stays the account that it is, until its pairing ends."""
    paired = record.paired and not reason_of(record.reason).unpairs
    known = instance.backend and record.account and claim.paired and claim.account
    return bool(paired and known) and claim.account != record.account


def is_guarded(session: MayBePaired) -> bool:
    """Whether only a person may end the pairing: its account needs a passkey for another one. An
    end that an engine or a server reports does not lift this: such a report can be wrong."""
    return session.record.needs_passkey and _may_lose(session)


def may_be_paired(record: SessionRecord, fact: ClaimFact | None, files: SessionFiles) -> bool:
    claimed = fact is not None and (fact.claim.paired or fact.claim.pairing_unknown)
    return record.paired or claimed or files is SessionFiles.WHOLE


def _may_lose(session: MayBePaired) -> bool:
    return may_be_paired(session.record, session.claim, session.files)


def last_reason(session: MayBePaired) -> str:
    """Why the session is not connected: the engine's present word, else the recorded one."""
    if session.claim is not None and session.claim.claim.reason:
        return session.claim.claim.reason
    return session.record.reason


def ended_for_good(observation: Observation) -> bool:
    """Whether WhatsApp ended it with a word after which no login happens by itself."""
    code = last_reason(observation)
    return bool(code) and reason_of(code).final


def waits_for_network(observation: Observation) -> bool:
    """Whether its engine connects by itself, waits for an answer, or names the network."""
    if observation.claim is None or not observation.unit.runs:
        return False
    claim = observation.claim.claim
    by_itself = claim.status is Status.RECONNECTING
    asks = claim.phase == "loaded" or claim.reason in NETWORK_CODES
    return by_itself or (claim.status in _ON_ITS_WAY and asks)


def wall_at(observation: Observation, now: float) -> float:
    return observation.at_wall + (now - observation.at)


def gave_up(observation: Observation, policy: ReconnectPolicy) -> str:
    """The code for which the agent ended its tries; "" while it goes on trying."""
    record = observation.record
    reason = reason_of(last_reason(observation)) if last_reason(observation) else None
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
    observation: Observation, health: Health, state: Status, reason: str, sentence: str
) -> HealthVerdict:
    repairable = health in (Health.STUCK, Health.CORRUPTED)
    return HealthVerdict(
        health, state, reason, sentence, repairable and no_pairing_to_lose(observation)
    )


def starting(observation: Observation, state: Status, sentence: str) -> HealthVerdict:
    """In time: nothing is wrong and nothing need be done, but it is not connected either."""
    return conclude(observation, Health.DISCONNECTED, state, "starting", sentence)


def stuck_in(observation: Observation, phase: str, seconds: float) -> HealthVerdict:
    running = observation.unit.state is UnitState.ACTIVE
    # The claim of an earlier run proves nothing about a run that still starts.
    claim = observation.claim if running else None
    state = Status.INITIALIZING if claim is None else claim.claim.status
    if phase == "pairing" and not observation.record.paired:
        code = PASSKEY_SUSPECTED
        sentence = f"{reason_of(code).title} ({seconds:.0f} s ago)"
        return conclude(observation, Health.STUCK, Status.QR_REQUIRED, code, sentence)
    sentence = f"stuck in phase {phase} for {seconds:.0f} s"
    code = observation.claim.claim.reason if observation.claim else ""
    if code == "injection_failed":
        # A changed page fails in whichever phase first needs what changed: one cause, one word.
        sentence = f"{reason_of(code).title} ({sentence})"
        return conclude(observation, Health.STUCK, state, code, sentence)
    return conclude(observation, Health.STUCK, state, f"phase_{phase}", sentence)


def corrupted(observation: Observation, code: str, more: str = "") -> HealthVerdict:
    sentence = reason_of(code).in_full(observation.instance.id, more)
    return conclude(observation, Health.CORRUPTED, Status.AUTH_FAILURE, code, sentence)


def waits_for_person(observation: Observation, reason: Reason) -> HealthVerdict:
    if reason.unpairs and is_guarded(observation):
        reason = replace(reason, advice=ENDED_WITH_PASSKEY)
    whose = observation.files_problem if reason.code == "session_foreign" else ""
    sentence = reason.in_full(observation.instance.id, whose)
    return conclude(observation, Health.DISCONNECTED, reason.status, reason.code, sentence)


def waits_its_time(observation: Observation, reason: Reason, raw: str = "") -> HealthVerdict:
    """Its next try has a time of its own: after a ban nothing is to be done; where the page or the
    client is refused, an operator should upgrade it."""
    health = Health.DEGRADED if reason.slow else Health.DISCONNECTED
    return conclude(observation, health, reason.status, reason.code, reason.title_with(raw))


def given_up_after(observation: Observation, code: str) -> HealthVerdict:
    last = reason_of(last_reason(observation)).title
    if code == "attempts_used_up":
        sentence = f"no success in {observation.record.attempts} attempts; last: {last}"
    else:
        sentence = f"{last}; the agent makes no further try"
    return conclude(observation, Health.DEGRADED, Status.DISCONNECTED, code, sentence)


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


def waits_for_others(observation: Observation, ended: Reason, now: float) -> bool:
    """Whether it waits; one whose own time has not come waits for no network."""
    own_time = ended.permanence in NOT_SOON and now < observation.not_before
    return bool(observation.wait_reason) and not (
        own_time and observation.wait_reason in ("network_down", UNREACHABLE)
    )


def is_the_networks(observation: Observation, verdict: HealthVerdict) -> bool:
    """Whether an address that is away explains this verdict."""
    if verdict.reason == "starting":
        return waits_for_network(observation)
    if verdict.health not in (Health.STUCK, Health.DEGRADED) or verdict.state in _AT_REST:
        return False
    return verdict.reason in NETWORK_CODES or verdict.reason in _NETWORK_VERDICTS


def waiting(observation: Observation) -> HealthVerdict:
    known = observation.wait_sentence or WAIT_SENTENCES.get(
        observation.wait_reason, observation.wait_reason
    )
    sentence = f"waiting: {known}"
    state = Status.RECONNECTING
    return conclude(observation, Health.DISCONNECTED, state, observation.wait_reason, sentence)


def wait_fields(reason: str, sentence: str = "") -> dict[str, str]:
    """How the API says why a session waits."""
    sentence = sentence or WAIT_SENTENCES.get(reason, reason)
    return {"wait_reason": reason, "wait_sentence": sentence}
