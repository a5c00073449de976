"""Verdicts that several rules of health end in."""

from dataclasses import replace

from agent.core.model import ConnectionStatus, Health, HealthVerdict, Observation, UnitState
from agent.core.observed import is_guarded, last_reason, no_pairing_to_lose
from agent.core.reasons import Reason, reason_of
from agent.core.words import PASSKEY_SUSPECTED

Status = ConnectionStatus

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
