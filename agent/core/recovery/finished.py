"""Whether a repair is over without another step, and whether its last step helped."""

from agent.core.breaker import remaining
from agent.core.model import ConnectionStatus, Health
from agent.core.reasons import reason_of
from agent.core.recovery.beginning import needs_repair
from agent.core.recovery.ladder import UNPAIRING, useless_steps
from agent.core.recovery.repair import Case, Ending, Goal, RecoveryKind, Repair, Stage, Trouble
from agent.core.words import NOT_TOLD, PASSKEY_SUSPECTED, UNMEASURED


def find_ending(case: Case, repair: Repair) -> Ending | None:
    verdict = case.verdict
    if not case.observation.desired.should_run or case.observation.unit.masked:
        return Ending.NOT_WANTED
    if repair.goal is Goal.CLEANUP and not repair.cleaned:
        return None
    if repair.stage is Stage.ACTING or needs_repair(verdict):
        return None
    helped = Ending.RECOVERED if repair.acts else Ending.NO_STEP
    if repair.cleaned or repair.unpaired:
        helped = Ending.CLEANED
    if verdict.reason in ("waiting_for_scan", PASSKEY_SUSPECTED):
        return helped
    if case.observation.wait_reason and not verdict.healthy:
        return None
    if verdict.reason == UNMEASURED:
        return None
    if verdict.reason == "ping_failed":
        # The next pings decide: a zombie looks the same after its failed pings are forgotten.
        return None
    if repair.trouble is Trouble.KEYS and stage_left(case, repair):
        return None
    if verdict.state is ConnectionStatus.CONNECTED:
        return helped
    if verdict.reason in ("starting", "stopping"):
        return None
    if verdict.reason == NOT_TOLD and stage_left(case, repair):
        return None  # until its library is there a program tells nothing
    # No step of a repair makes WhatsApp accept a client that it refuses.
    if verdict.health is not Health.DISCONNECTED and not reason_of(verdict.reason).slow:
        return None
    if _wants_code(case, repair):
        return None
    return Ending.NEEDS_PERSON


def _wants_code(case: Case, repair: Repair) -> bool:
    """It is logged out and must go on: a person asked for a code, or a step of this repair logged
    it out."""
    reason = reason_of(case.verdict.reason)
    return (repair.goal is Goal.WORKING_QR and reason.unpairs) or (
        # Also where the step failed: it may have come as far as the logout.
        (repair.unpaired or repair.step in UNPAIRING) and reason.scan_again
    )


def _wrong(case: Case, repair: Repair) -> bool:
    """Whether the state afterwards shows that the last step did not help."""
    return needs_repair(case.verdict) or _wants_code(case, repair)


def stage_left(case: Case, repair: Repair) -> float:
    """Seconds for which the last step may still report or show its effect."""
    if repair.stage is Stage.DUE:
        return 0.0
    if repair.goal is Goal.CLEANUP and not repair.cleaned and repair.stage is Stage.SETTLING:
        return 0.0  # a clean-up was asked for: do not wait for a milder step
    limit = case.policy.act_limit if repair.stage is Stage.ACTING else _settle_limit(case, repair)
    return remaining(repair.stage_wall + limit, case.now_wall, limit)


def _settle_limit(case: Case, repair: Repair) -> float:
    if repair.trouble is Trouble.SUSPECT:
        return case.policy.suspect_settle
    if not _wrong(case, repair):
        keys = repair.trouble is Trouble.KEYS and case.verdict.reason != "starting"
        return case.policy.settle_keys if keys else case.policy.start_limit
    if repair.step in useless_steps(case):
        # It was begun in a milder state; in this one it changes nothing.
        return 0.0
    same_run = repair.step in (RecoveryKind.RECONNECT, RecoveryKind.REGENERATE_KEYS)
    here = not case.observation.instance.backend
    return case.policy.settle if same_run and here else case.policy.settle_start
