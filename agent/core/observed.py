"""Conclusions from what was seen of a session: its past, its pairing, and what an operator did
to its worker with systemctl."""

from dataclasses import replace

from agent.core.model import ConnectionStatus as Status
from agent.core.model import (
    Health,
    Instance,
    Override,
    SessionFiles,
    SessionRecord,
    UnitState,
    UnitStatus,
)
from agent.core.reasons import NETWORK_CODES, UNREACHABLE, Permanence, reason_of
from agent.core.reconnect import ReconnectPolicy
from agent.core.session import Session
from agent.core.words import Claim

ON_ITS_WAY = (Status.INITIALIZING, Status.LOADING)


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


def is_paired_now(session: Session) -> bool:
    """True if its worker or its files say so, whatever its record says, or if neither tells."""
    if session.claim is not None:
        return session.claim.claim.paired or session.claim.claim.pairing_unknown
    whole = session.folder.files is SessionFiles.WHOLE
    return whole or session.unit.runs or bool(session.instance.backend)


def last_reason(session: Session) -> str:
    """Why the session is not connected: the engine's present word, else the recorded one."""
    if session.claim is not None and session.claim.claim.reason:
        return session.claim.claim.reason
    return session.record.reason


def waits_for_network(session: Session) -> bool:
    """Whether its engine connects by itself, waits for an answer, or names the network."""
    if session.claim is None or not session.unit.runs:
        return False
    claim = session.claim.claim
    by_itself = claim.status is Status.RECONNECTING
    asks = claim.phase == "loaded" or claim.reason in NETWORK_CODES
    return by_itself or (claim.status in ON_ITS_WAY and asks)


def gave_up(session: Session, policy: ReconnectPolicy) -> str:
    """The code for which the agent ended its tries; "" while it goes on trying."""
    record, reason = session.record, reason_of(last_reason(session))
    if reason.hopeless:
        return reason.code
    if reason.tries is not None and record.strikes > reason.tries:
        return "conflict_foreign_owner" if reason.code == "conflict" else reason.code
    if reason.endless or reason.slow:
        # A load of the page harms no account: it may wait for any time.
        return ""
    return "attempts_used_up" if record.attempts >= policy.attempts else ""


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


def shown_wait(session: Session) -> dict[str, str]:
    """How the API says why a session waits: only where it would be tried otherwise."""
    reason, verdict = session.wait.reason, session.verdict
    ended = reason_of(verdict.reason)
    idle = verdict.health in (Health.HEALTHY, Health.DISCONNECTED)
    # disabled, stopped: a start was ordered, and no pass has run since
    waits = verdict.reason in (reason, "disabled", "stopped")
    if not session.should_run or not (waits or not (idle or ended.hopeless or ended.slow)):
        reason = ""
    sentence = session.wait.sentence or WAIT_SENTENCES.get(reason, reason)
    return {"wait_reason": reason, "wait_sentence": sentence}


def stopped_by_hand(record: SessionRecord, unit: UnitStatus, boot: str) -> bool:
    """Its last run of this boot is over, and the agent did not stop it."""
    return (
        unit.state is UnitState.INACTIVE
        and record.seen_boot == boot
        and record.seen_run != ""
        and not (record.override is Override.STOPPED and record.override_boot == boot)
        and record.stopped_run != record.seen_run
    )


def started_by_hand(
    record: SessionRecord, unit: UnitStatus, boot: str, *, our_run: str, enabled: bool
) -> bool:
    """A new run that neither the agent nor systemd's Restart= began, and that is not wanted."""
    if not unit.runs or unit.restarts or unit.run in ("", record.seen_run, our_run):
        return False
    if unit.state is UnitState.DEACTIVATING:
        return False
    held = record.override is Override.STOPPED and record.override_boot == boot
    # At boot systemd starts what is enabled, this unit too; a later start is an operator's.
    again = reason_of(record.reason).final and record.seen_boot == boot
    return held or again or not enabled


def with_override(record: SessionRecord, override: Override, boot: str) -> SessionRecord:
    """The record with an operator's order, which holds for this boot."""
    in_boot = "" if override is Override.NONE else boot
    return replace(record, override=override, override_boot=in_boot)
