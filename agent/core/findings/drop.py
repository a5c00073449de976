"""Which ending of a session a claim, a unit or a verdict shows, so that it is counted once."""

from dataclasses import dataclass

from agent.core.health.judge import FOLDER_UNUSABLE, MISCONFIGURED
from agent.core.model import ConnectionStatus, Health, HealthVerdict, Observation, UnitState
from agent.core.reconcile import FOLDER_AWAY
from agent.core.words import PASSKEY_SUSPECTED, SUSPECT


@dataclass(frozen=True, slots=True)
class Drop:
    """The reason code of what ended, a key that is new for each ending, and a ban's end."""

    code: str
    key: tuple[str, str, float]
    until_wall: float | None = None


def find_drop(observation: Observation, verdict: HealthVerdict) -> Drop | None:
    unit, fact = observation.unit, observation.claim
    if not observation.desired.should_run:
        return None
    if verdict.reason in FOLDER_AWAY or unit.exit_status == FOLDER_UNUSABLE:
        return None  # that says nothing about the session
    if unit.state is UnitState.FAILED:
        code = "misconfigured" if unit.exit_status == MISCONFIGURED else "worker_failed"
        return Drop(code, ("unit", unit.run, unit.since))
    if fact is None or not unit.runs or fact.claim.reason == SUSPECT:
        # The session did not end: what was recorded before is still the reason.
        return None
    down = fact.claim.status in (ConnectionStatus.DISCONNECTED, ConnectionStatus.AUTH_FAILURE)
    if down and fact.claim.reason:
        return Drop(fact.claim.reason, ("claim", unit.run, fact.since), fact.claim.until_wall)
    if verdict.health is not Health.STUCK:
        return None
    own = verdict.reason in ("zombie", "injection_failed", PASSKEY_SUSPECTED)
    # A zombie stays one until it is connected again, whatever it claims in between.
    since = 0.0 if verdict.reason == "zombie" else fact.phase_since or fact.since
    return Drop(verdict.reason if own else "start_stuck", (verdict.reason, unit.run, since))
