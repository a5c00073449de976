"""Which step of a repair may be tried next: the order, the tries, and where a step is of use."""

from collections.abc import Mapping
from dataclasses import replace

from agent.core.breaker import remaining
from agent.core.model import Health, HealthVerdict, SessionFiles, UnitState
from agent.core.recovery.pairing import Case, may_repair_end_it
from agent.core.recovery.repair import (
    Consent,
    Ending,
    Goal,
    Proof,
    RecoveryKind,
    RecoveryPolicy,
    Repair,
    Stage,
    Trouble,
)

DESTRUCTIVE = frozenset({RecoveryKind.RESTORE, RecoveryKind.LOGOUT_RESTART, RecoveryKind.CLEANUP})
"""Never without a backup of the same repair, made first and confirmed to be readable."""
UNPAIRING = frozenset({RecoveryKind.LOGOUT_RESTART, RecoveryKind.CLEANUP})

_ALL = (
    RecoveryKind.RECONNECT,
    RecoveryKind.RESTART,
    RecoveryKind.RESTORE,
    RecoveryKind.LOGOUT_RESTART,
    RecoveryKind.CLEANUP,
)
LADDERS: Mapping[Trouble, tuple[RecoveryKind, ...]] = {
    Trouble.CONNECTION: _ALL,
    # New keys with the peers that fail come first: they delay the messages of no other.
    Trouble.KEYS: (RecoveryKind.REGENERATE_KEYS, *_ALL),
    # A worker refuses damaged files; starting it again and again proves nothing.
    Trouble.FILES: (RecoveryKind.RESTORE, RecoveryKind.CLEANUP),
    # Its old pairing may still be there: the agent never ends it by itself, and tries it again only
    # over a whole store.
    Trouble.SUSPECT: (RecoveryKind.RESTART, RecoveryKind.RESTORE),
}
"""From mild to harsh. Steps that end a pairing stand after all that keep it."""


def next_step(case: Case, repair: Repair) -> RecoveryKind | None:
    """The step to try now: the same again while it has tries left, else the next allowed one."""
    ladder = LADDERS[repair.trouble]
    if repair.goal is Goal.CLEANUP:
        ladder = (RecoveryKind.CLEANUP,)
    elif repair.goal is Goal.WORKING_QR and RecoveryKind.CLEANUP not in ladder:
        ladder = (*ladder, RecoveryKind.CLEANUP)
    first = ladder[0]
    if (
        first is RecoveryKind.REGENERATE_KEYS
        and not repair.regenerated
        and allowed(first, case, repair)
    ):
        # The failing peers may be known only now: a killed agent lost its counts.
        return first
    at = ladder.index(repair.step) if repair.step in ladder else -1
    same_again = at >= 0 and repair.tries < tries_for(repair.step, repair.trouble, case)
    if repair.done and repair.trouble is Trouble.CONNECTION and case.session.instance.backend:
        # The server did it and the session is as it was. A restart may still help the next time,
        # and is all that keeps a pairing.
        kept = repair.goal in (Goal.HEAL, Goal.RECOVER) and not case.session.no_pairing_to_lose
        same_again = same_again and kept and repair.step is RecoveryKind.RESTART
    candidates = ladder[at if same_again else at + 1 :]
    return next((step for step in candidates if allowed(step, case, repair)), None)


def tries_for(step: RecoveryKind, trouble: Trouble, case: Case) -> int:
    if step is RecoveryKind.RESTORE:
        # The same snapshot heals at once or never.
        return 1
    if case.verdict.reason == "crypto_corrupted" and step is RecoveryKind.RESTART:
        # A second new worker reads the same keys from the disk as the first.
        return 1
    return min(2, case.policy.tries) if trouble is Trouble.SUSPECT else case.policy.tries


def allowed(step: RecoveryKind, case: Case, repair: Repair) -> bool:
    unit = case.session.unit
    alive = unit.state is UnitState.ACTIVE and case.session.run.linked_since is not None
    if case.verdict.reason == "session_unreadable" and repair.goal is not Goal.CLEANUP:
        # The content of its folder is unknown: nothing may be put in its place on a guess.
        return False
    if step is not RecoveryKind.CLEANUP and case.session.last_reason.unpairs:
        # WhatsApp ended this pairing: another login with it harms the account.
        return False
    if step in DESTRUCTIVE and not repair.backup and repair.backup_tries >= case.policy.tries:
        return False
    asked = step is RecoveryKind.CLEANUP and repair.goal in (Goal.WORKING_QR, Goal.CLEANUP)
    if step.value in useless_steps(case) and not asked:
        return False
    if step is RecoveryKind.RECONNECT:
        return alive
    if step is RecoveryKind.RESTART and repair.trouble is Trouble.SUSPECT:
        return case.session.folder.files is SessionFiles.WHOLE
    if step is RecoveryKind.REGENERATE_KEYS:
        around = case.circumstances
        corrupted = case.verdict.reason == "crypto_corrupted"
        return alive and (bool(around.peers) or (around.finds_records and corrupted))
    if step is RecoveryKind.RESTORE:
        return _may_restore(case, repair)
    if step is RecoveryKind.LOGOUT_RESTART:
        pairing = case.session.record.paired or not case.session.no_pairing_to_lose
        return case.circumstances.can_log_out and alive and pairing and _may_unpair(case, repair)
    if step is RecoveryKind.CLEANUP:
        # It was cleaned up once and is still not well: a second empty session is no better.
        return not repair.cleaned and _may_unpair(case, repair)
    return True


def useless_steps(case: Case) -> frozenset[str]:
    """Steps that change nothing now: by the engine's word for its state and, where the agent's own
    worker hangs, a reconnect inside it."""
    fact = case.session.claim
    useless = fact.claim.useless if fact is not None else ()
    sick = case.verdict.health is Health.STUCK and not case.session.instance.backend
    return frozenset((*useless, RecoveryKind.RECONNECT.value) if sick else useless)


def _may_unpair(case: Case, repair: Repair) -> bool:
    return _makes_sense(case, repair) and isinstance(may_repair_end_it(case, repair), Proof)


def _makes_sense(case: Case, repair: Repair) -> bool:
    """Without a pairing to lose a new one costs nothing, and it must still be of use now."""
    if repair.goal in (Goal.WORKING_QR, Goal.CLEANUP) or repair.unpaired:
        return True
    if repair.step in UNPAIRING and case.session.last_reason.scan_again:
        return True
    around = case.circumstances
    if repair.trouble is Trouble.SUSPECT:
        return False
    # In an incident one without a pairing goes all the way: it shows whether the server can at all.
    may_try = around.well or (around.canary and case.session.no_pairing_to_lose)
    return may_try and case.verdict.health in (Health.STUCK, Health.CORRUPTED)


def _may_restore(case: Case, repair: Repair) -> bool:
    if not (case.circumstances.good_snapshot and case.circumstances.may_roll_back):
        return False
    if not case.session.record.paired:
        return False
    # A suspect is stopped by now: only its files can be seen.
    if case.verdict.health is Health.CORRUPTED or repair.trouble is Trouble.SUSPECT:
        return True
    # A stuck session is rarely its files' fault: only after everything else, in each round.
    last_round = repair.round >= case.policy.rounds or repair.goal is Goal.WORKING_QR
    return case.verdict.health is Health.STUCK and last_round


# When a repair begins, and how it is joined, hurried, and gone on with after the agent's end.


_TROUBLE_OF = {
    "session_damaged": Trouble.FILES,
    "session_missing": Trouble.FILES,
    "unpaired_suspect": Trouble.SUSPECT,
    "crypto_corrupted": Trouble.KEYS,
    "crypto_peer": Trouble.KEYS,
}
_MILD_REASONS = frozenset({"proof_old", "not_proved", "crypto_peer", "silent_inbound"})
_HARMLESS = (RecoveryKind.RECONNECT, RecoveryKind.RESTART)
_SETTLED = (Ending.RECOVERED, Ending.NO_STEP, Ending.CLEANED, Ending.NOT_WANTED)
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
    return Repair(trouble, verdict.reason, goal, now_wall, consent, stage_wall=now_wall)


def join_repair(repair: Repair, goal: Goal, consent: Consent = Consent.NONE) -> Repair:
    """A second request joins the repair; it may widen what the repair may do."""
    wider = max(repair.goal, goal, key=list(Goal).index)
    if not repair.cleaned:  # else the earlier word was for what is cleaned up by now
        consent = max(repair.consent, consent, key=list(Consent).index)
    if goal is not Goal.HEAL and repair.stage is Stage.DUE:
        # The caller waits for the answer: a delayed step is due now.
        repair = replace(repair, not_before_wall=0.0)
    return replace(repair, goal=wider, consent=consent, resumed=0)


def lapse_order(repair: Repair) -> Repair:
    """What a person asked for is for now: later the agent goes on as by itself."""
    return replace(repair, goal=Goal.HEAL, consent=Consent.NONE)


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
    word that waited for its step has lapsed; steps.py drops one whose step was under way where the
    session is paired."""
    if repair.stage is not Stage.ACTING:
        waited = repair.consent is not Consent.NONE and not repair.unpaired
        return lapse_order(repair) if waited and not repair.over else repair
    again = repair.resumed < 3
    return replace(
        repair,
        stage=Stage.DUE,
        stage_wall=now_wall,
        not_before_wall=now_wall,
        tries=max(repair.tries - 1, 0) if again else repair.tries,
        regenerated=repair.regenerated
        and not (again and repair.step is RecoveryKind.REGENERATE_KEYS),
        resumed=repair.resumed + 1,
    )
