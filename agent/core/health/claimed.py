"""Judge a session by what its worker claims: a claim counts as far as it is proved, and for as long
as its state may last."""

from dataclasses import replace

from agent.core.health.policy import HealthPolicy
from agent.core.model import Claim, ClaimFact, ConnectionStatus, Health, HealthVerdict, Observation
from agent.core.observed import gave_up, is_other_account
from agent.core.phases import IN_WORDS, overdue_phase
from agent.core.reasons import reason_of
from agent.core.verdicts import (
    conclude,
    corrupted,
    given_up_after,
    starting,
    stuck_in,
    waits_for_person,
    waits_its_time,
)
from agent.core.waiting import NOT_SOON, waiting, waits_for_others
from agent.core.words import NOT_TOLD, OTHER_ACCOUNT, PASSKEY_REQUIRED, PASSKEY_SUSPECTED

Status = ConnectionStatus

NO_CODE_GUESS = "client_outdated"
"""What an engine guesses of a server that tries to connect without an end."""


def by_claim(
    observation: Observation, fact: ClaimFact, policy: HealthPolicy, now: float
) -> HealthVerdict:
    claim = fact.claim
    if is_other_account(observation.instance, observation.record, claim):
        return waits_for_person(observation, reason_of(OTHER_ACCOUNT))
    if claim.status is Status.CONNECTED:
        return _connected(observation, fact, policy, now)
    if claim.status is Status.QR_REQUIRED:
        return _asks_for_scan(observation, claim)
    if claim.reason == NOT_TOLD:
        # Unknown is neither connected nor stuck: no repair could find out.
        sentence = reason_of(NOT_TOLD).title_with(claim.raw)
        return conclude(observation, Health.DISCONNECTED, claim.status, NOT_TOLD, sentence)
    if claim.status in (Status.DISCONNECTED, Status.AUTH_FAILURE):
        if (
            not claim.reason
            and claim.status is Status.DISCONNECTED
            and (now - fact.since < policy.stuck)
        ):
            # No reason: the worker disconnected in order to connect again.
            return starting(observation, Status.RECONNECTING, "it reconnects")
        return _dropped(observation, claim, policy, now)
    if phase := overdue_phase(fact, now, policy.phases):
        return stuck_in(observation, phase, now - fact.phase_since)
    unnamed = policy.phases.limit(claim.phase) is None
    if unnamed and now - fact.since >= _patience(observation, claim, policy):
        what, guess = _hangs(claim)
        sentence = f"{what} for {now - fact.since:.0f} s"
        stuck = conclude(observation, Health.STUCK, claim.status, "state_stuck", sentence)
        return replace(stuck, guess=guess)
    doing = IN_WORDS.get(claim.phase, "on its way")
    ended = claim.reason or observation.record.reason
    sentence = f"{doing}, after: {reason_of(ended).title}" if ended else doing
    return replace(starting(observation, claim.status, sentence), after=ended)


def _hangs(claim: Claim) -> tuple[str, str]:
    """What is known; and what its cause may be."""
    if claim.guess == NO_CODE_GUESS:
        cause = "the server may not reach WhatsApp, or WhatsApp may refuse its version"
        return "not connected" if claim.paired else "no code", f"{cause}; the server does not say"
    return str(claim.status), reason_of(claim.guess).title if claim.guess else ""


def _patience(observation: Observation, claim: Claim, policy: HealthPolicy) -> float:
    """An engine that reconnects by itself gets as long as a sync: a restart would slow it down. A
    server's "connecting" proves nothing, so it gets no longer."""
    by_itself = claim.status is Status.RECONNECTING and not observation.instance.backend
    return policy.phases.sync if by_itself else policy.stuck


def _connected(
    observation: Observation, fact: ClaimFact, policy: HealthPolicy, now: float
) -> HealthVerdict:
    proved_at = fact.proved_at()
    probe = observation.probe
    if proved_at is None:
        if now - fact.since < policy.stuck:
            return starting(
                observation, Status.LOADING, "its engine claims CONNECTED, and no proof came yet"
            )
        sentence = f"its engine claims CONNECTED for {now - fact.since:.0f} s without a proof"
        health = Health.STUCK if now - fact.since > policy.proof_limit else Health.DEGRADED
        return conclude(observation, health, Status.LOADING, "not_proved", sentence)
    if (age := now - proved_at) > policy.proof_limit:
        sentence = f"its engine claims CONNECTED; the last proof is {age:.0f} s old"
        health = Health.STUCK if age > 2 * policy.proof_limit else Health.DEGRADED
        return conclude(observation, health, Status.RECONNECTING, "proof_old", sentence)
    if probe is not None and probe.failures:
        sentence = f"{probe.failures} of {policy.zombie_pings} pings failed"
        return conclude(observation, Health.DEGRADED, Status.CONNECTED, "ping_failed", sentence)
    if probe is not None and probe.ok and probe.seconds > policy.slow:
        sentence = f"it took {probe.seconds:.1f} s to answer"
        return conclude(observation, Health.DEGRADED, Status.CONNECTED, "slow", sentence)
    return conclude(observation, Health.HEALTHY, Status.CONNECTED, "", "connected")


def _asks_for_scan(observation: Observation, claim: Claim) -> HealthVerdict:
    record = observation.record
    known = reason_of(claim.reason or record.reason)
    if record.paired and not known.unpairs:
        return corrupted(observation, "unpaired_suspect")
    if record.needs_passkey:
        return waits_for_person(observation, reason_of(PASSKEY_REQUIRED))
    suspected = record.reason == PASSKEY_SUSPECTED and claim.reason in ("", "qr_idle")
    if suspected or known.code in (PASSKEY_REQUIRED, PASSKEY_SUSPECTED):
        return waits_for_person(observation, reason_of(PASSKEY_SUSPECTED) if suspected else known)
    # The claim's own reason: no code is offered, or the scan alone is not enough.
    own = known.status is Status.QR_REQUIRED
    sentence = known.title if own else "it waits for a scan of its QR code"
    reason = known.code if own else "waiting_for_scan"
    return conclude(observation, Health.DISCONNECTED, Status.QR_REQUIRED, reason, sentence)


def _dropped(
    observation: Observation, claim: Claim, policy: HealthPolicy, now: float
) -> HealthVerdict:
    reason = reason_of(claim.reason)
    if reason.code == "remote_missing":
        sentence = reason.in_full(observation.instance.id)
        return conclude(observation, Health.NOT_FOUND, reason.status, reason.code, sentence)
    if reason.hopeless:
        return waits_for_person(observation, reason)
    if given_up := gave_up(observation, policy.reconnect):
        return given_up_after(observation, given_up)
    if waits_for_others(observation, reason, now):
        return waiting(observation)
    if reason.permanence in NOT_SOON:
        return waits_its_time(observation, reason, claim.raw)
    sentence = reason.title_with(claim.raw)
    return conclude(observation, Health.DEGRADED, Status.RECONNECTING, reason.code, sentence)
