"""What an observation says of a session's past and pairing; health and passes use it."""

from typing import Protocol

from agent.core.model import (
    Claim,
    ClaimFact,
    ConnectionStatus,
    Desired,
    Instance,
    Observation,
    Override,
    SessionFiles,
    SessionRecord,
)
from agent.core.reasons import NETWORK_CODES, reason_of
from agent.core.reconnect import ReconnectPolicy

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
