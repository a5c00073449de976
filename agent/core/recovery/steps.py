"""Choose the next step of a repair and follow it to its end. One repair per instance at a time.

In each pass: `repair, decision = step_repair(case, repair)`, save the repair, carry out
`plan_step(decision, ...)`, `repair = after_action(...)`, save it.
"""

from dataclasses import replace

from agent.core.breaker import remaining
from agent.core.model import ConnectionStatus, Health
from agent.core.reasons import reason_of
from agent.core.recovery import ladder
from agent.core.recovery.pairing import Case, is_calm, may_put_back, may_repair_end_it
from agent.core.recovery.repair import (
    Decision,
    Ending,
    Goal,
    Kept,
    Proof,
    RecoveryKind,
    RecoveryPolicy,
    Repair,
    Stage,
    Trouble,
    delay_step,
)
from agent.core.session import BACKEND_UNCHECKED, GONE, STARTING
from agent.core.words import NOT_TOLD, PASSKEY_SUSPECTED, UNMEASURED


def find_ending(case: Case, repair: Repair) -> Ending | None:
    verdict = case.verdict
    if not case.session.should_run or case.session.unit.masked:
        return Ending.NOT_WANTED
    if repair.goal is Goal.CLEANUP and not repair.cleaned:
        return None
    if repair.stage is Stage.ACTING or ladder.needs_repair(verdict):
        return None
    helped = Ending.RECOVERED if repair.acts else Ending.NO_STEP
    if repair.cleaned or repair.unpaired:
        helped = Ending.CLEANED
    if verdict.reason in ("waiting_for_scan", PASSKEY_SUSPECTED):
        return helped
    if case.session.wait.reason and not verdict.healthy:
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
        (repair.unpaired or repair.step in ladder.UNPAIRING) and reason.scan_again
    )


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
    if not (ladder.needs_repair(case.verdict) or _wants_code(case, repair)):  # it helped
        keys = repair.trouble is Trouble.KEYS and case.verdict.reason != "starting"
        return case.policy.settle_keys if keys else case.policy.start_limit
    if repair.step in ladder.useless_steps(case):
        # It was begun in a milder state; in this one it changes nothing.
        return 0.0
    same_run = repair.step in (RecoveryKind.RECONNECT, RecoveryKind.REGENERATE_KEYS)
    here = not case.session.instance.backend
    return case.policy.settle if same_run and here else case.policy.settle_start


MOST_ACTS = 100
"""No real repair comes near; it ends one that an error in this code would never end."""

NOTHING_TO_REMOVE = "nothing_to_remove"
FOR_GOOD = frozenset({"not_supported", "remote_missing", "files", NOTHING_TO_REMOVE})
"""Codes of refusals that the same step would meet again in this round."""

_HELD = 60.0
"""Seconds between two looks at a repair that waits for an outage's end."""


def step_repair(case: Case, repair: Repair) -> tuple[Repair, Decision]:
    """The repair as it stands now, and the one thing to do."""
    if repair.over:
        return repair, Decision(RecoveryKind.NONE, f"the repair is over: {repair.ending}")
    if case.session.wait.reason in GONE:
        repair = ladder.lapse_order(repair)
    if repair.resumed and repair.consent and not (repair.cleaned or repair.unpaired):
        # The agent ended with the order under way: what is paired now may be a new pairing.
        if case.session.wait.reason == BACKEND_UNCHECKED:
            until = case.now_wall + _HELD
            return repair, Decision(RecoveryKind.WAIT, "until its server was asked", until)
        if case.session.is_paired_now:
            repair = ladder.lapse_order(repair)
    repair = replace(repair, calm=repair.calm and is_calm(case))
    if ending := find_ending(case, repair):
        return _end(case, repair, ending, case.verdict.sentence)
    if wait := stage_left(case, repair):
        what = "reports" if repair.stage is Stage.ACTING else "shows whether it helped"
        until = case.now_wall + wait
        return repair, Decision(RecoveryKind.WAIT, f"until {repair.step} {what}", until)
    if repair.stage is not Stage.DUE:
        at_once = repair.goal is Goal.CLEANUP
        wait = 0.0 if at_once else _delay(repair.tries, case.policy)
        repair = delay_step(repair, case.now_wall, wait)
    return _next_act(case, _follow_trouble(case, repair))


def after_action(
    repair: Repair,
    kind: RecoveryKind,
    ok: bool,
    policy: RecoveryPolicy,
    now_wall: float,
    *,
    backup: str = "",
    no_effect: bool = False,
    refusal: str = "",
) -> Repair:
    """A step reported. `backup` names what BACK_UP made and confirmed to be readable; `no_effect`:
    the step failed because its server answered it and changed nothing. `refusal`: the code with
    which it was refused."""
    if repair.over:
        return repair
    if kind is RecoveryKind.BACK_UP:
        made = backup if ok else ""
        wait = 0.0 if made else _delay(repair.backup_tries, policy)
        return delay_step(replace(repair, backup=made), now_wall, wait)
    if not ok:
        wait = _delay(repair.tries, policy)
        tries = policy.tries if refusal in FOR_GOOD else repair.tries
        return delay_step(replace(repair, done=no_effect, tries=tries), now_wall, wait)
    return replace(
        repair,
        stage=Stage.SETTLING,
        stage_wall=now_wall,
        done=True,
        cleaned=repair.cleaned or kind is RecoveryKind.CLEANUP,
        unpaired=repair.unpaired or kind in ladder.UNPAIRING,
    )


def _end(case: Case, repair: Repair, ending: Ending, sentence: str) -> tuple[Repair, Decision]:
    good = ending in (Ending.RECOVERED, Ending.CLEANED, Ending.NO_STEP)
    kind = RecoveryKind.NONE if good else RecoveryKind.GIVE_UP
    ended = replace(repair, ending=ending, ended_wall=case.now_wall, stage=Stage.DUE)
    idle = ending is Ending.GAVE_UP
    if ending is Ending.NO_STEP:
        word = "over without a step"
    elif idle and repair.goal is not Goal.HEAL:
        word = "over after the round that was asked for"
    else:
        word = ending.replace("_", " ")
    return ended, Decision(kind, f"{word}: {sentence}", idle=idle)


def _follow_trouble(case: Case, repair: Repair) -> Repair:
    """The verdict may change to another trouble; then that trouble's ladder begins."""
    if not ladder.needs_repair(case.verdict) or ladder.trouble_of(case.verdict) is repair.trouble:
        return repair
    return replace(
        repair,
        trouble=ladder.trouble_of(case.verdict),
        reason=case.verdict.reason,
        step=RecoveryKind.NONE,
        tries=0,
        done=False,
    )


def _next_act(case: Case, repair: Repair) -> tuple[Repair, Decision]:
    now_wall, verdict = case.now_wall, case.verdict
    if verdict.reason == UNMEASURED:
        return repair, Decision(RecoveryKind.WAIT, verdict.sentence, now_wall + _HELD)
    wait = remaining(repair.not_before_wall, now_wall, case.policy.round_pause)
    # A step that keeps the pairing is possible, and none was in the round before: no pause.
    step = ladder.next_step(case, repair)
    came_up = repair.nothing_tried and step not in (None, *ladder.UNPAIRING)
    if wait and not came_up:
        sentence = f"{verdict.sentence}; {_where(repair)}, next try in {wait:.0f} s"
        return repair, Decision(RecoveryKind.WAIT, sentence, now_wall + wait)
    around = case.circumstances
    if repair.goal is Goal.HEAL and not (around.well or around.canary):
        sentence = "waiting: its backend or the network is down, or many sessions fail with it"
        return repair, Decision(RecoveryKind.WAIT, sentence, now_wall + _HELD)
    if repair.acts >= MOST_ACTS:
        return _end(case, repair, Ending.GAVE_UP, "too many steps")
    if _waits_for_start(case, repair):
        waiting = replace(repair, stage=Stage.SETTLING, stage_wall=now_wall, acts=repair.acts + 1)
        until = now_wall + case.policy.start_limit
        return waiting, Decision(RecoveryKind.WAIT, "until its worker runs", until)
    if repair.trouble is Trouble.SUSPECT and case.session.unit.runs:
        # Its files can only be checked while no worker runs; plan_actions stops it first.
        sentence = "until its worker has stopped and its files are checked"
        return repair, Decision(RecoveryKind.WAIT, sentence, now_wall + _HELD)
    if step is None:
        return _end_round(case, repair)
    if step in ladder.DESTRUCTIVE and not repair.backup:
        acting = replace(_begin_step(repair, now_wall), backup_tries=repair.backup_tries + 1)
        return acting, Decision(RecoveryKind.BACK_UP, f"a backup before {step}")
    tries = repair.tries + 1 if step is repair.step else 1
    keys = repair.regenerated or step is RecoveryKind.REGENERATE_KEYS
    acting = replace(
        _begin_step(repair, now_wall),
        step=step,
        tries=tries,
        regenerated=keys,
        done=False,
        nothing_tried=False,
    )
    proof: Proof | Kept | None = may_put_back() if step is RecoveryKind.RESTORE else None
    if step in ladder.UNPAIRING:
        proof = may_repair_end_it(case, repair)
    assert not isinstance(proof, Kept), "the ladder allowed it"
    return acting, Decision(step, f"{verdict.sentence}; {_where(acting)}", proof=proof)


def _waits_for_start(case: Case, repair: Repair) -> bool:
    """It was cut off and nothing is wrong by now: the session waits for its turn to start, or comes
    up because the step that was under way did its work."""
    if repair.trouble is Trouble.SUSPECT or repair.goal is Goal.CLEANUP:
        return False
    if case.verdict.health is Health.NOT_FOUND:
        return repair.goal is Goal.HEAL
    cut_off = repair.resumed > 0 and not repair.done
    return cut_off and not ladder.needs_repair(case.verdict) and case.verdict.state in STARTING


def _end_round(case: Case, repair: Repair) -> tuple[Repair, Decision]:
    sentence, rounds = case.verdict.sentence, case.policy.rounds
    if repair.trouble is Trouble.SUSPECT:
        return _end_suspect(case, repair)
    # Without a pairing to lose there is no last round: it goes on until a code is shown.
    endless = case.session.no_pairing_to_lose
    last = repair.round >= rounds and repair.calm and not endless
    if repair.goal is not Goal.HEAL or last:
        return _end(case, repair, Ending.GAVE_UP, sentence)
    # A round in an outage, or before any step is of use, proves nothing about the instance.
    early = RecoveryKind.CLEANUP.value in ladder.useless_steps(case)
    number = repair.round + 1 if (repair.calm and not early) or endless else repair.round
    pause = case.policy.round_pause
    if endless:
        pause = min(case.policy.unpaired_pause * 2.0 ** min(repair.round - 1, 16), pause)
    why = "" if repair.calm or endless else ": the cause may not be its own, its pairing is kept"
    repair = replace(
        repair,
        round=number,
        calm=True,
        nothing_tried=repair.step is RecoveryKind.NONE,
        step=RecoveryKind.NONE,
        tries=0,
        done=False,
        cleaned=repair.cleaned and not endless,
        regenerated=False,
        # The files are newer by then than this round's backup.
        backup="",
        backup_tries=0,
    )
    repair = delay_step(repair, case.now_wall, pause)
    of = "" if endless else f" of {rounds}"
    sentence = f"{sentence}; round {number}{of} in {pause:.0f} s{why}"
    return repair, Decision(RecoveryKind.WAIT, sentence, repair.not_before_wall, idle=True)


def _end_suspect(case: Case, repair: Repair) -> tuple[Repair, Decision]:
    """The store may come back (a disk, a copy under way, the end of an incident). If it does not, a
    person decides, for the old pairing may be somewhere."""
    limit = case.policy.suspect_settle
    left = remaining(repair.started_wall + limit, case.now_wall, limit)
    wait = left if case.circumstances.well else _HELD
    if wait and repair.goal not in (Goal.WORKING_QR, Goal.CLEANUP):
        sentence = f"{case.verdict.sentence}; waiting in case its files come back"
        return repair, Decision(RecoveryKind.WAIT, sentence, case.now_wall + wait)
    return _end(case, repair, Ending.GAVE_UP, case.verdict.sentence)


def _begin_step(repair: Repair, now_wall: float) -> Repair:
    return replace(repair, stage=Stage.ACTING, stage_wall=now_wall, acts=repair.acts + 1)


def _delay(tries: int, policy: RecoveryPolicy) -> float:
    return policy.first_delay * 2.0 ** min(max(tries - 1, 0), 16)


def _where(repair: Repair) -> str:
    if repair.step is RecoveryKind.NONE:
        return f"round {repair.round}"
    return f"{repair.step}, try {repair.tries}, round {repair.round}"
