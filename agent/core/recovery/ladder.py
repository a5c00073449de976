"""A repair of one session: which step may be tried next (the order, the tries, where a step is of
use), when it begins, and how it is followed to its end. One repair per instance at a time.

In each pass: `repair, decision = step_repair(case, repair)`, save the repair, carry out
`plan_step(decision, ...)`, `repair = after_action(...)`, save it. How a repair is joined, hurried
and gone on with is in repair.py."""

from dataclasses import dataclass, replace

from agent.core import breaker, reasons, session, words
from agent.core.model import ConnectionStatus, Health, HealthVerdict, SessionFiles, UnitState
from agent.core.recovery.pairing import PUT_BACK, Case, RecoveryPolicy, is_calm, may_repair_end_it
from agent.core.recovery.repair import Ending, Goal, Proof, RecoveryKind, Repair, Stage, Trouble

DESTRUCTIVE = frozenset({RecoveryKind.RESTORE, RecoveryKind.LOGOUT_RESTART, RecoveryKind.CLEANUP})
"""Steps that need a backup of the same repair, made first and confirmed to be readable."""
ENDING_STEPS = frozenset({RecoveryKind.LOGOUT_RESTART, RecoveryKind.CLEANUP})

_ALL = (
    RecoveryKind.RECONNECT,
    RecoveryKind.RESTART,
    RecoveryKind.RESTORE,
    RecoveryKind.LOGOUT_RESTART,
    RecoveryKind.CLEANUP,
)
LADDERS: dict[Trouble, tuple[RecoveryKind, ...]] = {
    Trouble.CONNECTION: _ALL,
    # New keys with the peers that fail come first: they delay the messages of no other.
    Trouble.KEYS: (RecoveryKind.REGENERATE_KEYS, *_ALL),
    # A worker refuses damaged files; starting it again and again proves nothing.
    Trouble.FILES: (RecoveryKind.RESTORE, RecoveryKind.CLEANUP),
    # The old pairing of such a session may still be there: the agent never ends it by itself, and
    # tries it again only over a whole store.
    Trouble.SUSPECT: (RecoveryKind.RESTART, RecoveryKind.RESTORE),
}
"""From mild to harsh. Steps that end a pairing stand after all that keep it."""


def next_step(case: Case, repair: Repair) -> RecoveryKind | None:
    """Return the step to try: the same again while it has tries left, else the next allowed one."""
    ladder = LADDERS[repair.trouble]
    if repair.goal is Goal.CLEANUP:
        ladder = (RecoveryKind.CLEANUP,)
    elif repair.goal is Goal.WORKING_QR and RecoveryKind.CLEANUP not in ladder:
        ladder = (*ladder, RecoveryKind.CLEANUP)
    first = ladder[0]
    keys_first = first is RecoveryKind.REGENERATE_KEYS and not repair.regenerated
    if keys_first and allowed(first, case, repair):
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
    same_keys = case.verdict.reason == "crypto_corrupted" and step is RecoveryKind.RESTART
    if same_keys or step is RecoveryKind.RESTORE:
        # A second new worker reads the same keys from the disk as the first, and the same snapshot
        # heals at once or never.
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
        corrupted = case.verdict.reason == "crypto_corrupted"
        return alive and (bool(case.peers) or (case.finds_records and corrupted))
    if step is RecoveryKind.RESTORE:
        return not case.copied and _may_restore(case, repair)
    if step is RecoveryKind.LOGOUT_RESTART:
        pairing = case.session.record.paired or not case.session.no_pairing_to_lose
        return case.can_log_out and alive and pairing and _may_unpair(case, repair)
    if step is RecoveryKind.CLEANUP:
        # It was cleaned up once and is still not well: a second empty session is no better.
        return not repair.cleaned and _may_unpair(case, repair)
    return True


def useless_steps(case: Case) -> frozenset[str]:
    """Steps that change nothing now: those that the engine names and, where a session of this
    machine is stuck, a reconnect inside its worker, so that it begins with a restart."""
    fact = case.session.claim
    useless = fact.claim.useless if fact is not None else ()
    sick = case.verdict.health is Health.STUCK and not case.session.instance.backend
    return frozenset((*useless, RecoveryKind.RECONNECT.value) if sick else useless)


def _may_unpair(case: Case, repair: Repair) -> bool:
    return _makes_sense(case, repair) and isinstance(may_repair_end_it(case, repair), Proof)


def _makes_sense(case: Case, repair: Repair) -> bool:
    """True if a new pairing still makes sense: a person asked, or the session is unwell."""
    if repair.goal in (Goal.WORKING_QR, Goal.CLEANUP) or repair.unpaired:
        return True
    if repair.step in ENDING_STEPS and case.session.last_reason.scan_again:
        return True
    if repair.trouble is Trouble.SUSPECT:
        return False
    # In an incident one without a pairing goes all the way: it shows whether the server can at all.
    may_try = case.well or (case.canary and case.session.no_pairing_to_lose)
    return may_try and case.verdict.health in (Health.STUCK, Health.CORRUPTED)


def _may_restore(case: Case, repair: Repair) -> bool:
    if not (case.good_snapshot and case.may_roll_back and case.session.record.paired):
        return False
    # A suspect is stopped by now: only its files can be seen.
    if case.verdict.health is Health.CORRUPTED or repair.trouble is Trouble.SUSPECT:
        return True
    # A stuck session is rarely its files' fault: only after everything else, in each round.
    last_round = repair.round >= case.policy.rounds or repair.goal is Goal.WORKING_QR
    return case.verdict.health is Health.STUCK and last_round


# When a repair begins.


_TROUBLE_OF = {
    "session_damaged": Trouble.FILES,
    "session_missing": Trouble.FILES,
    "unpaired_suspect": Trouble.SUSPECT,
    "crypto_corrupted": Trouble.KEYS,
    "crypto_peer": Trouble.KEYS,
}
_MILD_REASONS = frozenset({"proof_old", "not_proved", "crypto_peer", "silent_inbound"})
_NEXT_IS_NEW = (Ending.RECOVERED, Ending.NO_STEP, Ending.CLEANED, Ending.NOT_WANTED)
"""Endings after which a new trouble is a new repair, at once."""


def needs_repair(verdict: HealthVerdict) -> bool:
    """True if the ladder has something to do; a plain drop is for reconnecting."""
    if verdict.reason == "session_unreadable":
        return False  # its content is unknown, so it is not to be replaced
    if verdict.health in (Health.STUCK, Health.CORRUPTED):
        return True
    return verdict.health is Health.DEGRADED and verdict.reason in _MILD_REASONS


def trouble_of(reason: str) -> Trouble:
    return _TROUBLE_OF.get(reason, Trouble.CONNECTION)


def wants_repair(
    verdict: HealthVerdict,
    last: Repair | None,
    policy: RecoveryPolicy,
    now_wall: float,
    *,
    released_wall: float = 0.0,
) -> bool:
    """True if the agent begins a repair by itself, after the `last` one (None: there was none).

    `released_wall`: when the last incident of its kind ended, or its turn as a canary began; a
    member that gave up before may try again.
    """
    if not needs_repair(verdict) or (last is not None and not last.over):
        return False
    if last is None or last.outlived or last.ending in _NEXT_IS_NEW:
        return True
    if trouble_of(verdict.reason) is not last.trouble:
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
    return again > 0 and breaker.remaining(last.ended_wall + again, now_wall, again) <= 0


def begin_repair(verdict: HealthVerdict, goal: Goal, now_wall: float) -> Repair:
    return Repair(trouble_of(verdict.reason), verdict.reason, goal, now_wall, stage_wall=now_wall)


# The next act of a repair, from pass to pass


def find_ending(case: Case, repair: Repair) -> Ending | None:
    verdict = case.verdict
    if not case.session.should_run or case.session.unit.masked:
        return Ending.NOT_WANTED
    # In a ban for a time no worker may log in: a clean-up would wait for its end, unasked by then.
    asked = repair.goal is Goal.CLEANUP and not (repair.cleaned or case.session.banned)
    if asked or repair.stage is Stage.ACTING or needs_repair(verdict):
        return None
    helped = Ending.RECOVERED if repair.acts else Ending.NO_STEP
    if repair.cleaned or repair.unpaired:
        helped = Ending.CLEANED
    if verdict.reason in ("waiting_for_scan", words.PASSKEY_SUSPECTED):
        return helped
    if case.session.wait.reason and not verdict.healthy:
        return None
    # The next pings decide: a zombie looks the same after its failed pings are forgotten.
    if verdict.reason in (words.UNMEASURED, "ping_failed", "starting", "stopping"):
        return None
    # Until its library is there a program tells nothing.
    later = repair.trouble is Trouble.KEYS or verdict.reason == words.NOT_TOLD
    if later and stage_left(case, repair):
        return None
    if verdict.state is ConnectionStatus.CONNECTED:
        return helped
    reason = reasons.reason_of(verdict.reason)
    # No step of a repair makes WhatsApp accept a client that it refuses, or ends a ban.
    if verdict.health is not Health.DISCONNECTED and not (reason.slow or case.session.banned):
        return None
    return None if _wants_code(case, repair) else Ending.NEEDS_PERSON


def _wants_code(case: Case, repair: Repair) -> bool:
    """It is logged out and must go on: a person asked for a code, or a step of this repair logged
    it out."""
    reason = reasons.reason_of(case.verdict.reason)
    asked = repair.goal is Goal.WORKING_QR and reason.unpairs
    # Also where the step failed: it may have come as far as the logout.
    return asked or ((repair.unpaired or repair.step in ENDING_STEPS) and reason.scan_again)


def stage_left(case: Case, repair: Repair) -> float:
    """Seconds for which the last step may still report or show its effect."""
    if repair.stage is Stage.DUE:
        return 0.0
    if repair.goal is Goal.CLEANUP and not repair.cleaned and repair.stage is Stage.SETTLING:
        return 0.0  # a clean-up was asked for: do not wait for a milder step
    limit = case.policy.act_limit if repair.stage is Stage.ACTING else _settle_limit(case, repair)
    return breaker.remaining(repair.stage_wall + limit, case.now_wall, limit)


def _settle_limit(case: Case, repair: Repair) -> float:
    if repair.trouble is Trouble.SUSPECT:
        return case.policy.suspect_settle
    if not (needs_repair(case.verdict) or _wants_code(case, repair)):  # it helped
        keys = repair.trouble is Trouble.KEYS and case.verdict.reason != "starting"
        return case.policy.settle_keys if keys else case.policy.start_limit
    if repair.step in useless_steps(case):
        # It was begun in a milder state; in this one it changes nothing.
        return 0.0
    same_run = repair.step in (RecoveryKind.RECONNECT, RecoveryKind.REGENERATE_KEYS)
    here = not case.session.instance.backend
    return case.policy.settle if same_run and here else case.policy.settle_start


MOST_ACTS = 100
"""Acts after which a repair ends: only one that an error in this code keeps alive has more."""

NO_EFFECT = "no_effect"
"""The code of a step that its server answered and that changed nothing."""
NOTHING_TO_REMOVE = "nothing_to_remove"
FOR_GOOD = frozenset({"not_supported", "remote_missing", "files", NOTHING_TO_REMOVE})
"""Codes of refusals that the same step would meet again in this round."""

_HELD = 60.0
"""Seconds between two looks at a repair that waits for an outage's end."""


@dataclass(frozen=True, slots=True)
class Decision:
    kind: RecoveryKind
    reason: str
    """The decision's reason, as one sentence."""
    not_before_wall: float = 0.0
    """For WAIT: Unix time at which to ask again at the latest."""
    proof: Proof | None = None
    """Why the pairing may end; None = the step keeps it."""
    idle: bool = False
    """True if the round has no step left to try."""


def step_repair(case: Case, repair: Repair) -> tuple[Repair, Decision]:
    """Return the repair, which is not over, as it stands now, and the one thing to do."""
    if case.session.wait.reason in session.LONG_AWAY:
        repair = repair.lapse()
    if repair.resumed and repair.consent and not (repair.cleaned or repair.unpaired):
        # The agent ended with the order under way: what is paired now may be a new pairing.
        if case.session.wait.reason == session.BACKEND_UNCHECKED:
            until = case.now_wall + _HELD
            return repair, Decision(RecoveryKind.WAIT, "until its server was asked", until)
        if case.session.is_paired_now:
            repair = repair.lapse()
    repair = replace(repair, calm=repair.calm and is_calm(case))
    if ending := find_ending(case, repair):
        return _end(case, repair, ending, case.verdict.sentence)
    if wait := stage_left(case, repair):
        what = "reports" if repair.stage is Stage.ACTING else "shows whether it helped"
        until = case.now_wall + wait
        return repair, Decision(RecoveryKind.WAIT, f"until {repair.step} {what}", until)
    if repair.stage is not Stage.DUE:
        wait = 0.0 if repair.goal is Goal.CLEANUP else case.policy.delay_after(repair.tries)
        repair = repair.delay(case.now_wall, wait)
    trouble = trouble_of(case.verdict.reason)
    if needs_repair(case.verdict) and trouble is not repair.trouble:
        # The ladder of the other trouble begins.
        repair = repair.from_the_top(trouble=trouble, reason=case.verdict.reason)
    return _next_act(case, repair)


def after_action(
    repair: Repair,
    kind: RecoveryKind,
    ok: bool,
    policy: RecoveryPolicy,
    now_wall: float,
    *,
    backup: str = "",
    refusal: str = "",
) -> Repair:
    """A step reported. `backup` names what BACK_UP made and confirmed to be readable; `refusal`:
    the code with which the step was refused."""
    if repair.over:
        return repair
    if kind is RecoveryKind.BACK_UP:
        made = backup if ok else ""
        wait = 0.0 if made else policy.delay_after(repair.backup_tries)
        return replace(repair, backup=made).delay(now_wall, wait)
    if not ok:
        wait = policy.delay_after(repair.tries)
        tries = policy.tries if refusal in FOR_GOOD else repair.tries
        return replace(repair, done=refusal == NO_EFFECT, tries=tries).delay(now_wall, wait)
    cleaned = repair.cleaned or kind is RecoveryKind.CLEANUP
    unpaired = repair.unpaired or kind in ENDING_STEPS
    repair = replace(repair, done=True, cleaned=cleaned, unpaired=unpaired)
    return replace(repair, stage=Stage.SETTLING, stage_wall=now_wall)


def _end(case: Case, repair: Repair, ending: Ending, sentence: str) -> tuple[Repair, Decision]:
    ended = replace(repair, ending=ending, ended_wall=case.now_wall, stage=Stage.DUE)
    idle = ending is Ending.GAVE_UP
    if ending is Ending.NO_STEP:
        word = "over without a step"
    elif idle and repair.goal is not Goal.HEAL:
        word = "over after the round that was asked for"
    else:
        word = ending.replace("_", " ")
    return ended, Decision(RecoveryKind.NONE, f"{word}: {sentence}", idle=idle)


def _next_act(case: Case, repair: Repair) -> tuple[Repair, Decision]:
    now_wall, verdict = case.now_wall, case.verdict
    if verdict.reason == words.UNMEASURED:
        return repair, Decision(RecoveryKind.WAIT, verdict.sentence, now_wall + _HELD)
    wait = breaker.remaining(repair.not_before_wall, now_wall, case.policy.round_pause)
    # A step that keeps the pairing is possible, and none was in the round before: no pause. A pause
    # changes nothing about files that cannot be read.
    step = next_step(case, repair)
    kept = step not in ENDING_STEPS or repair.trouble is Trouble.FILES
    came_up = repair.nothing_tried and step is not None and kept
    if wait and not came_up:
        sentence = f"{verdict.sentence}; {repair.where}, next try in {wait:.0f} s"
        return repair, Decision(RecoveryKind.WAIT, sentence, now_wall + wait)
    if repair.goal is Goal.HEAL and not (case.well or case.canary):
        sentence = "waiting: its backend or the network is down, or many sessions fail with it"
        return repair, Decision(RecoveryKind.WAIT, sentence, now_wall + _HELD)
    if repair.acts >= MOST_ACTS:
        return _end(case, repair, Ending.GAVE_UP, "too many steps")
    if _waits_for_start(case, repair):
        waiting = replace(repair, stage=Stage.SETTLING, stage_wall=now_wall, acts=repair.acts + 1)
        until = now_wall + case.policy.start_limit
        return waiting, Decision(RecoveryKind.WAIT, "until its worker runs", until)
    if repair.trouble is Trouble.SUSPECT and case.session.unit.runs:
        # The files can be checked only while no worker runs; plan_actions stops the worker first.
        sentence = "until its worker has stopped and its files are checked"
        return repair, Decision(RecoveryKind.WAIT, sentence, now_wall + _HELD)
    if step is None:
        return _end_round(case, repair)
    if step in DESTRUCTIVE and not repair.backup:
        acting = replace(repair.begin_step(now_wall), backup_tries=repair.backup_tries + 1)
        return acting, Decision(RecoveryKind.BACK_UP, f"a backup before {step}")
    tries = repair.tries + 1 if step is repair.step else 1
    regenerated = repair.regenerated or step is RecoveryKind.REGENERATE_KEYS
    acting = replace(repair.begin_step(now_wall), step=step, tries=tries, done=False)
    acting = replace(acting, regenerated=regenerated, nothing_tried=False)
    found = may_repair_end_it(case, repair) if step in ENDING_STEPS else None
    proof = PUT_BACK if step is RecoveryKind.RESTORE else found
    assert proof is None or isinstance(proof, Proof), "the ladder allowed it"
    return acting, Decision(step, f"{verdict.sentence}; {acting.where}", proof=proof)


def _waits_for_start(case: Case, repair: Repair) -> bool:
    """It was cut off and nothing is wrong by now: the session waits for its turn to start, or comes
    up because the step that was under way did its work."""
    if repair.trouble is Trouble.SUSPECT or repair.goal is Goal.CLEANUP:
        return False
    if case.verdict.health is Health.NOT_FOUND:
        return repair.goal is Goal.HEAL
    cut_off = repair.resumed > 0 and not repair.done
    return cut_off and not needs_repair(case.verdict) and case.verdict.state in session.STARTING


def _end_round(case: Case, repair: Repair) -> tuple[Repair, Decision]:
    sentence, rounds = case.verdict.sentence, case.policy.rounds
    if repair.trouble is Trouble.SUSPECT:
        return _end_suspect(case, repair)
    # Without a pairing to lose there is no last round: it goes on until a code is shown.
    endless = case.session.no_pairing_to_lose
    if repair.goal is not Goal.HEAL or (repair.round >= rounds and repair.calm and not endless):
        return _end(case, repair, Ending.GAVE_UP, sentence)
    # A round in an outage, or before any step is of use, proves nothing about the instance.
    early = RecoveryKind.CLEANUP.value in useless_steps(case)
    number = repair.round + 1 if (repair.calm and not early) or endless else repair.round
    pause = case.policy.round_pause
    if endless:
        pause = min(case.policy.unpaired_pause * 2.0 ** min(repair.round - 1, 16), pause)
    why = "" if repair.calm or endless else ": the cause may not be its own, its pairing is kept"
    repair = repair.from_the_top(
        round=number,
        calm=True,
        nothing_tried=repair.step is RecoveryKind.NONE,
        cleaned=repair.cleaned and not endless,
        regenerated=False,
        # The files are newer by then than this round's backup.
        backup="",
        backup_tries=0,
    )
    repair = repair.delay(case.now_wall, pause)
    of = "" if endless else f" of {rounds}"
    sentence = f"{sentence}; round {number}{of} in {pause:.0f} s{why}"
    return repair, Decision(RecoveryKind.WAIT, sentence, repair.not_before_wall, idle=True)


def _end_suspect(case: Case, repair: Repair) -> tuple[Repair, Decision]:
    """The store may come back (a disk, a copy under way, the end of an incident). If it does not, a
    person decides, for the old pairing may be somewhere."""
    limit = case.policy.suspect_settle
    left = breaker.remaining(repair.started_wall + limit, case.now_wall, limit)
    wait = left if case.well else _HELD
    if wait and repair.goal not in (Goal.WORKING_QR, Goal.CLEANUP):
        sentence = f"{case.verdict.sentence}; waiting in case its pairing comes back"
        return repair, Decision(RecoveryKind.WAIT, sentence, case.now_wall + wait)
    return _end(case, repair, Ending.GAVE_UP, case.verdict.sentence)
