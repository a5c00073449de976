"""Choose the next step of a repair and follow it to its end. One repair per instance at a time.

The caller, on each pass with a repair: `repair, decision = step_repair(case, repair)`, save the
repair, carry out `plan_step(decision, ...)`, `repair = after_action(...)`, save it. Saved before
each step begins and after it ended, a repair that was cut off is resumed (`resume_repair`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from agent.core.breaker import remaining
from agent.core.model import ActionKind, ConnectionStatus, Health, Plan
from agent.core.observed import no_pairing_to_lose
from agent.core.reasons import reason_of
from agent.core.recovery.ladder import DESTRUCTIVE, UNPAIRING, next_step, useless_steps
from agent.core.recovery.repair import (
    Case,
    Ending,
    Goal,
    RecoveryKind,
    RecoveryPolicy,
    Repair,
    Stage,
    Trouble,
    needs_repair,
    trouble_of,
)
from agent.core.words import SUSPECT


@dataclass(frozen=True, slots=True)
class Decision:
    kind: RecoveryKind
    reason: str
    """One sentence."""
    not_before_wall: float = 0.0
    """For WAIT: when to ask again at the latest."""


_ACTIONS: Mapping[RecoveryKind, tuple[ActionKind, ...]] = {
    RecoveryKind.RECONNECT: (ActionKind.DISCONNECT, ActionKind.CONNECT),
    RecoveryKind.RESTART: (ActionKind.RESTART,),
    RecoveryKind.REGENERATE_KEYS: (ActionKind.REGENERATE_KEYS,),
    RecoveryKind.BACK_UP: (ActionKind.BACK_UP,),
    RecoveryKind.RESTORE: (ActionKind.STOP, ActionKind.RESTORE, ActionKind.START),
    RecoveryKind.CLEANUP: (ActionKind.STOP, ActionKind.SET_ASIDE, ActionKind.START),
}
_ACTIONS_REMOTE = {
    **_ACTIONS,
    RecoveryKind.LOGOUT_RESTART: (ActionKind.LOGOUT, ActionKind.RESTART),
    RecoveryKind.CLEANUP: (ActionKind.RENEW,),
}
"""On a backend: its server has the files."""

MOST_ACTS = 100
"""No repair of any shape gets near; it ends the one that a fault in here would not end."""

_HELD = 60.0
"""How often a repair that waits for better weather is looked at."""


def step_repair(case: Case, repair: Repair) -> tuple[Repair, Decision]:
    """The repair as it stands now, and the one thing to do."""
    if repair.over:
        return repair, Decision(RecoveryKind.NONE, f"the repair is over: {repair.ending}")
    around = case.circumstances
    repair = replace(repair, calm=repair.calm and around.well and around.odd_one_out)
    if _was_being_published(case, repair):
        return _next_act(case, repair)
    if ending := _ending(case, repair):
        return _end(case, repair, ending, case.verdict.sentence)
    if wait := _stage_left(case, repair):
        what = "reports" if repair.stage is Stage.ACTING else "shows whether it helped"
        until = case.now_wall + wait
        return repair, Decision(RecoveryKind.WAIT, f"until {repair.step} {what}", until)
    if repair.stage is not Stage.DUE:
        repair = _due(repair, case.now_wall, _delay(repair.tries, case.policy))
    return _next_act(case, _follow_trouble(case, repair))


def plan_step(decision: Decision, *, remote: bool) -> Plan:
    """The actions of a step."""
    actions = (_ACTIONS_REMOTE if remote else _ACTIONS)[decision.kind]
    return Plan(decision.kind.value, actions, decision.reason, repair=True)


def plan_needs_scan(reason: str) -> Plan:
    """The end of a suspect that was tried in vain: its files are evidence, it may pair again."""
    return Plan("needs_scan", (ActionKind.STOP, ActionKind.SET_ASIDE), reason, repair=True)


def after_action(
    repair: Repair,
    kind: RecoveryKind,
    ok: bool,
    policy: RecoveryPolicy,
    now_wall: float,
    *,
    backup: str = "",
    no_effect: bool = False,
) -> Repair:
    """A step reported.

    `backup` names what BACK_UP made and confirmed to be readable; `no_effect`: the step failed
    because its server answered it and changed nothing.
    """
    if repair.over:
        return repair
    if kind is RecoveryKind.BACK_UP:
        made = backup if ok else ""
        wait = 0.0 if made else _delay(repair.backup_tries, policy)
        return _due(replace(repair, backup=made), now_wall, wait)
    if not ok:
        return _due(replace(repair, done=no_effect), now_wall, _delay(repair.tries, policy))
    return replace(
        repair,
        stage=Stage.SETTLING,
        stage_wall=now_wall,
        done=True,
        cleaned=repair.cleaned or kind is RecoveryKind.CLEANUP,
        unpaired=repair.unpaired or kind in UNPAIRING,
        restarted=repair.restarted or kind is RecoveryKind.RESTART,
    )


def put_off_ending(repair: Repair, policy: RecoveryPolicy, now_wall: float) -> Repair:
    """What must be done before it may be over could not be done: it is due again later."""
    wait = min(_delay(repair.acts, policy), _HELD)
    return _due(replace(repair, acts=repair.acts + 1), now_wall, wait)


def _was_being_published(case: Case, repair: Repair) -> bool:
    """A suspect whose pairing is given up already: what is left of its end must be done."""
    return (
        repair.trouble is Trouble.SUSPECT
        and repair.stage is Stage.DUE
        and repair.step is not RecoveryKind.CLEANUP
        and bool(repair.backup)
        and not case.observation.record.paired
        and case.observation.desired.should_run
    )


def _ending(case: Case, repair: Repair) -> Ending | None:
    """Whether the repair is over without another step."""
    verdict = case.verdict
    if not case.observation.desired.should_run or case.observation.unit.masked:
        return Ending.NOT_WANTED
    if repair.goal is Goal.CLEANUP and not repair.cleaned:
        return None
    if repair.stage is Stage.ACTING or needs_repair(verdict):
        return None
    helped = _helped(repair)
    if verdict.reason == "waiting_for_scan":
        return helped
    if case.observation.hold:
        return None
    if verdict.reason == "ping_failed":
        # The next pings decide: a zombie looks the same after its failed pings are forgotten.
        return None
    if repair.trouble is Trouble.KEYS and _stage_left(case, repair):
        return None
    if verdict.state is ConnectionStatus.CONNECTED:
        return helped
    if verdict.health is not Health.DISCONNECTED or verdict.reason in ("starting", "stopping"):
        return None
    if _wants_code(case, repair):
        return None
    return Ending.NEEDS_PERSON


def _helped(repair: Repair) -> Ending:
    return Ending.CLEANED if repair.cleaned or repair.unpaired else Ending.RECOVERED


def _wants_code(case: Case, repair: Repair) -> bool:
    """It is logged out and that is not the end: a person asked for a code, or a step of this
    repair logged it out."""
    reason = reason_of(case.verdict.reason)
    return (repair.goal is Goal.WORKING_QR and reason.unpairs) or (
        # Also where the step failed: it may have come as far as the logout.
        (repair.unpaired or repair.step in UNPAIRING) and reason.scan_again
    )


def _wrong(case: Case, repair: Repair) -> bool:
    """Whether the state afterwards says that the step before did not help."""
    return needs_repair(case.verdict) or _wants_code(case, repair)


def _end(case: Case, repair: Repair, ending: Ending, sentence: str) -> tuple[Repair, Decision]:
    good = ending in (Ending.RECOVERED, Ending.CLEANED)
    kind = RecoveryKind.NONE if good else RecoveryKind.GIVE_UP
    ended = replace(repair, ending=ending, ended_wall=case.now_wall, stage=Stage.DUE)
    by_itself = ending is Ending.RECOVERED and not repair.acts
    word = "over without a step" if by_itself else ending.replace("_", " ")
    return ended, Decision(kind, f"{word}: {sentence}")


def _stage_left(case: Case, repair: Repair) -> float:
    """Seconds for which the step before may still report or show its effect."""
    if repair.stage is Stage.DUE:
        return 0.0
    if repair.goal is Goal.CLEANUP and not repair.cleaned and repair.stage is Stage.SETTLING:
        return 0.0  # a person wants it begun afresh: what a milder step does is not waited for
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


def _follow_trouble(case: Case, repair: Repair) -> Repair:
    """What is wrong may turn out to be something else; then its own ladder begins."""
    if not needs_repair(case.verdict) or trouble_of(case.verdict) is repair.trouble:
        return repair
    return replace(
        repair,
        trouble=trouble_of(case.verdict),
        reason=case.verdict.reason,
        step=RecoveryKind.NONE,
        tries=0,
        done=False,
    )


def _next_act(case: Case, repair: Repair) -> tuple[Repair, Decision]:
    now_wall, verdict = case.now_wall, case.verdict
    if wait := remaining(repair.not_before_wall, now_wall, case.policy.round_pause):
        sentence = f"{verdict.sentence}; {_where(repair)}, next try in {wait:.0f} s"
        return repair, Decision(RecoveryKind.WAIT, sentence, now_wall + wait)
    if _was_being_published(case, repair):
        return _end_suspect(case, repair)
    around = case.circumstances
    if repair.goal is Goal.HEAL and not (around.well or around.canary):
        sentence = "waiting: its backend or the network is down, or many sessions fail with it"
        return repair, Decision(RecoveryKind.WAIT, sentence, now_wall + _HELD)
    if repair.acts >= MOST_ACTS:
        return _end(case, repair, Ending.GAVE_UP, "too many steps")
    own = repair.goal is Goal.HEAL and repair.trouble is not Trouble.SUSPECT
    if own and verdict.health is Health.NOT_FOUND:
        # Nothing is wrong with one that waits for its turn to start: the repair was cut off.
        waiting = replace(repair, stage=Stage.SETTLING, stage_wall=now_wall, acts=repair.acts + 1)
        until = now_wall + case.policy.start_limit
        return waiting, Decision(RecoveryKind.WAIT, "until its worker runs", until)
    if repair.trouble is Trouble.SUSPECT and case.observation.unit.runs:
        # Its files can only be checked while no worker runs; plan_actions stops it first.
        sentence = "until its worker has stopped and its files are checked"
        return repair, Decision(RecoveryKind.WAIT, sentence, now_wall + _HELD)
    step = next_step(case, repair)
    if step is None:
        return _end_round(case, repair)
    if step in DESTRUCTIVE and not repair.backup:
        return _back_up(case, repair, f"a backup before {step}")
    tries = repair.tries + 1 if step is repair.step else 1
    keys = repair.regenerated or step is RecoveryKind.REGENERATE_KEYS
    owes = repair.had_pairing or (step in UNPAIRING and not no_pairing_to_lose(case.observation))
    acting = replace(
        _acting(repair, now_wall),
        step=step,
        tries=tries,
        regenerated=keys,
        had_pairing=owes,
        done=False,
    )
    return acting, Decision(step, f"{verdict.sentence}; {_where(acting)}")


def _back_up(case: Case, repair: Repair, sentence: str) -> tuple[Repair, Decision]:
    acting = replace(_acting(repair, case.now_wall), backup_tries=repair.backup_tries + 1)
    return acting, Decision(RecoveryKind.BACK_UP, sentence)


def _end_round(case: Case, repair: Repair) -> tuple[Repair, Decision]:
    sentence, rounds = case.verdict.sentence, case.policy.rounds
    if repair.trouble is Trouble.SUSPECT:
        return _wait_for_store(case, repair) or _end_suspect(case, repair)
    # Without a pairing to lose there is no last round: it goes on until a code is shown.
    endless = no_pairing_to_lose(case.observation)
    last = repair.round >= rounds and repair.calm and not endless
    owes_code = repair.had_pairing and endless
    if repair.cleanup_owed and endless:
        repair = replace(repair, tries=0, done=False, cleaned=False, cleanup_owed=False)
        return _next_act(case, repair)
    if (repair.goal is not Goal.HEAL and not owes_code) or last:
        return _end(case, repair, Ending.GAVE_UP, sentence)
    # A round in bad weather proves nothing about the instance: it is run again.
    number = repair.round + 1 if repair.calm or endless else repair.round
    pause = _round_pause(case.policy, repair.round, endless=endless)
    repair = replace(
        repair,
        # What was asked for was one round; that it owes a code is its own matter from here on.
        goal=Goal.HEAL,
        round=number,
        calm=True,
        step=RecoveryKind.NONE,
        tries=0,
        done=False,
        cleaned=repair.cleaned and not endless,
        regenerated=False,
        # What lies on the disk by then is newer than this round's backup.
        backup="",
        backup_tries=0,
    )
    repair = _due(repair, case.now_wall, pause)
    of = "" if endless else f" of {rounds}"
    sentence = f"{sentence}; round {number}{of} in {pause:.0f} s"
    return repair, Decision(RecoveryKind.WAIT, sentence, repair.not_before_wall)


def _round_pause(policy: RecoveryPolicy, round: int, *, endless: bool) -> float:
    if not endless:
        return policy.round_pause
    return min(policy.unpaired_pause * 2.0 ** min(round - 1, 16), policy.round_pause)


def _wait_for_store(case: Case, repair: Repair) -> tuple[Repair, Decision] | None:
    """Unless a new code is asked for no pairing is given up at once, for a store may come back as
    it went (a disk, a copy under way); nor while many came up like this: then it is not the store.
    """
    if repair.goal in (Goal.WORKING_QR, Goal.CLEANUP):
        return None
    now_wall, limit = case.now_wall, case.policy.suspect_settle
    if not case.circumstances.well:
        why = "other sessions came up the same way, or its backend is down"
        sentence = f"{case.verdict.sentence}; waiting: {why}"
        return repair, Decision(RecoveryKind.WAIT, sentence, now_wall + _HELD)
    if not (wait := remaining(repair.started_wall + limit, now_wall, limit)):
        return None
    sentence = f"{case.verdict.sentence}; waiting in case its files come back"
    return repair, Decision(RecoveryKind.WAIT, sentence, now_wall + wait)


def _end_suspect(case: Case, repair: Repair) -> tuple[Repair, Decision]:
    """Before a new pairing may overwrite it, the old store is put away as evidence."""
    if repair.backup:
        return _end(case, repair, Ending.NEEDS_SCAN, reason_of(SUSPECT).title)
    if repair.backup_tries >= case.policy.tries:
        return _end(case, repair, Ending.GAVE_UP, "the backup of its old files failed")
    return _back_up(case, repair, "a backup before a new pairing")


def _acting(repair: Repair, now_wall: float) -> Repair:
    return replace(repair, stage=Stage.ACTING, stage_wall=now_wall, acts=repair.acts + 1)


def _due(repair: Repair, now_wall: float, wait: float) -> Repair:
    return replace(repair, stage=Stage.DUE, stage_wall=now_wall, not_before_wall=now_wall + wait)


def _delay(tries: int, policy: RecoveryPolicy) -> float:
    return policy.first_delay * 2.0 ** min(max(tries - 1, 0), 16)


def _where(repair: Repair) -> str:
    if repair.step is RecoveryKind.NONE:
        return f"round {repair.round}"
    return f"{repair.step}, try {repair.tries}, round {repair.round}"
