"""When a repair begins, and how it is joined, hurried, and gone on with after the agent's end."""

from dataclasses import replace

from agent.core.breaker import remaining
from agent.core.model import Health, HealthVerdict
from agent.core.recovery.policy import RecoveryPolicy
from agent.core.recovery.proof import Consent
from agent.core.recovery.repair import Ending, Goal, RecoveryKind, Repair, Stage, Trouble

_TROUBLE_OF = {
    "session_damaged": Trouble.FILES,
    "session_missing": Trouble.FILES,
    "unpaired_suspect": Trouble.SUSPECT,
    "crypto_corrupted": Trouble.KEYS,
    "crypto_peer": Trouble.KEYS,
}
_MILD_REASONS = frozenset({"proof_old", "not_proved", "crypto_peer", "silent_inbound"})
_KEYS_STEP = RecoveryKind.REGENERATE_KEYS
_HARMLESS = (RecoveryKind.RECONNECT, RecoveryKind.RESTART)
_SETTLED = (
    *(Ending.RECOVERED, Ending.NO_STEP, Ending.CLEANED),
    *(Ending.NEEDS_SCAN, Ending.NOT_WANTED),
)
"""After these the session is a new one, which needs a scan."""


def needs_repair(verdict: HealthVerdict) -> bool:
    """Whether the ladder has something to do (a plain drop is the reconnecting's)."""
    if verdict.reason == "session_unreadable":
        return False  # its content is unknown, so it is not to be replaced
    if verdict.health in (Health.STUCK, Health.CORRUPTED):
        return True
    return verdict.health is Health.DEGRADED and verdict.reason in _MILD_REASONS


def trouble_of(verdict: HealthVerdict) -> Trouble:
    return _TROUBLE_OF.get(verdict.reason, Trouble.CONNECTION)


def wants_repair(
    verdict: HealthVerdict,
    last: Repair | None,
    policy: RecoveryPolicy,
    now_wall: float,
    *,
    released_wall: float = 0.0,
) -> bool:
    """Whether the agent begins a repair by itself, after the last one (None: there was none).

    `released_wall`: when the last incident of its kind ended, or its turn as a canary began; a
    member that gave up before may try again.
    """
    if not needs_repair(verdict) or (last is not None and not last.over):
        return False
    if last is None or last.outlived or last.ending in _SETTLED:
        return True
    if trouble_of(verdict) is not last.trouble:
        return True
    if last.ending is not Ending.GAVE_UP:
        return False
    if last.ended_wall <= released_wall <= now_wall:
        return True
    if last.goal is not Goal.HEAL and not last.acts:
        return True  # a person asked before there was a step to try
    again = policy.keys_again if last.trouble is Trouble.KEYS else policy.again
    if last.goal is not Goal.HEAL:  # one round was asked for: the agent's own come after the pause
        again = min(again, policy.round_pause)
    if verdict.should_cleanup:  # no pairing to lose: it goes on until a code is shown
        again = policy.unpaired_pause
    return again > 0 and remaining(last.ended_wall + again, now_wall, again) <= 0


def outlive_repair(last: Repair, verdict: HealthVerdict) -> Repair:
    """It was well since the repair gave up: a later failure is a new one."""
    outlived = last.outlived or (last.ending is Ending.NEEDS_PERSON and verdict.healthy)
    return replace(last, outlived=outlived)


def begin_repair(
    verdict: HealthVerdict, goal: Goal, now_wall: float, consent: Consent = Consent.NONE
) -> Repair:
    trouble = trouble_of(verdict)
    own = goal is Goal.HEAL
    return Repair(trouble, verdict.reason, goal, now_wall, consent, stage_wall=now_wall, own=own)


def join_repair(repair: Repair, goal: Goal, consent: Consent = Consent.NONE) -> Repair:
    """A second request joins the repair; it may widen what the repair may do."""
    wider = max(repair.goal, goal, key=list(Goal).index)
    if not repair.cleaned:  # else the earlier word was for what is cleaned up by now
        consent = max(repair.consent, consent, key=list(Consent).index)
    if goal is not Goal.HEAL and repair.stage is Stage.DUE:
        # The caller waits for the answer: a delayed step is due now.
        repair = replace(repair, not_before_wall=0.0)
    owed = repair.cleaned and goal in (Goal.WORKING_QR, Goal.CLEANUP)
    owed = owed or repair.cleanup_owed
    return replace(repair, goal=wider, consent=consent, joined=repair.joined + 1, cleanup_owed=owed)


def lapse_order(repair: Repair) -> Repair:
    """What a person asked for is for now: later the agent goes on as by itself."""
    return replace(repair, goal=Goal.HEAL, consent=Consent.NONE, cleanup_owed=False)


def hurry_repair(repair: Repair, *, paired: bool) -> Repair:
    """It has its turn in an incident, or the incident is over: its next try is due now. What it
    tried while others failed alike was no failure of its own, so its round begins again; without
    a pairing it goes on to the step that makes a new session."""
    if repair.stage is not Stage.DUE:
        return repair
    repair = replace(repair, not_before_wall=0.0)
    if not paired or repair.trouble is not Trouble.CONNECTION or repair.step not in _HARMLESS:
        return repair
    return replace(repair, step=RecoveryKind.NONE, tries=0, done=False)


def resume_repair(repair: Repair, now_wall: float) -> Repair:
    """After the agent's own restart a step under way is done again, but not for ever. A person's
    word that waited for its step has lapsed: who gave it waits no more."""
    if repair.stage is not Stage.ACTING:
        waited = repair.consent is not Consent.NONE and not repair.had_pairing
        return lapse_order(repair) if waited and not repair.over else repair
    again = repair.resumed < 3
    return replace(
        repair,
        stage=Stage.DUE,
        stage_wall=now_wall,
        not_before_wall=now_wall,
        tries=max(repair.tries - 1, 0) if again else repair.tries,
        regenerated=repair.regenerated and not (again and repair.step is _KEYS_STEP),
        resumed=repair.resumed + 1,
    )
