"""Carries out every plan, within its deadline, and reports its outcome; and the repair that the
plans are steps of."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from agent import clock, errors, files
from agent.config.config import Config
from agent.core.crypto import forget_old, note_regenerated
from agent.core.model import Category, HealthVerdict, UnitState
from agent.core.reconcile import ActionKind, Outcome, Plan
from agent.core.recovery import ladder, pairing
from agent.core.recovery.repair import Ending, Goal, Ground, Kept, RecoveryKind, Repair, Trouble
from agent.core.session import AWAY
from agent.engines.catalog import entry_of, file_rules
from agent.log import about, clean, going_on, log
from agent.supervise.facts import Facts
from agent.supervise.record import Means, failing_peers
from agent.supervise.registry import Registry, is_written
from agent.vault import folders, identity, restore, snapshots, tree
from agent.vault.folder import unless_unusable

CALL_TIMEOUT = 15.0
REMOTE_TIMEOUT = 120.0
"""Seconds for an act of a server on a session: servers take their time."""
PLAN_TIMEOUT = 150.0
"""Seconds for a plan: less than the core's own limit for a step that does not report."""
BURST = 1.0
"""Seconds to wait for further errors of keys: a burst names all peers that fail."""
STILL = 5.0
"""Seconds in which files that are called damaged must not change before they are set aside."""


async def carry_out(means: Means, facts: Facts, plan: Plan) -> Outcome:
    """Carry out a plan. A failure of host, worker or disk is not raised: it is the outcome."""
    begun, made, detail, refusal = clock.boot_now(), "", "", ""
    task = asyncio.create_task(_do_all(means, facts, plan), name=plan.name)
    facts.action.task = task  # a stop may cancel it
    try:
        await asyncio.wait([task], timeout=PLAN_TIMEOUT)
        if not task.done():
            detail = "it took too long"
        elif task.cancelled():
            detail = "interrupted"
        else:
            made = task.result()
    except errors.WaError as error:
        detail = str(error) or type(error).__name__
        refusal = (error.code or "") if isinstance(error, errors.EngineError) else ""
    finally:
        # A cancelled plan ends before its pass: the code that closes all workers later must see
        # what it had asked of the host.
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        facts.action.task = None
    return Outcome(not detail, clock.boot_now() - begun, detail, refusal, made)


async def _do_all(means: Means, facts: Facts, plan: Plan) -> str:
    if ActionKind.RESTORE in plan.actions:
        await means.keeping.must_have_room(facts)
        # First, so that a copy that the next agent finds in place has no errors counted against
        # it.
        facts.forgive()
    made = ""
    for kind in plan.actions:
        made = await _do(means, facts, kind, plan) or made
    return made


async def _do(means: Means, facts: Facts, kind: ActionKind, plan: Plan) -> str:
    """Do one action; return the name of the copy that it made; "" = none."""
    match kind:
        case ActionKind.START | ActionKind.RESTART:
            await begin_run(means, facts, again=kind is ActionKind.RESTART and facts.unit.runs)
        case ActionKind.STOP:
            # Saved first: the next agent must not take this stop for an operator's.
            facts.record = replace(facts.record, stopped_run=facts.record.seen_run)
            await means.registry.save(facts)
            await means.seats.stop(facts)
            facts.unit = await means.seats.status(facts)
            if plan.repair:
                files.failpoint("repair_stopped")
        case ActionKind.CONNECT | ActionKind.DISCONNECT:
            if kind is ActionKind.CONNECT and facts.record.reason == "conflict":
                await means.registry.hold_copy(facts)
            await _call(facts, kind, max(means.settings.config.health.timeout, CALL_TIMEOUT))
            if kind is ActionKind.DISCONNECT:
                files.failpoint("repair_disconnected")
        case ActionKind.SET_ASIDE:
            return await _set_aside(means, facts, plan)
        case ActionKind.RESTORE:
            await means.keeping.restore_newest(facts)
            await _look_at_files(means, facts)
        case ActionKind.BACK_UP:
            if facts.instance.backend:
                return "each removal of keys, beside it"  # it has no files here to copy
            return await means.keeping.back_up(facts, "before a repair")
        case ActionKind.REGENERATE_KEYS:
            await _regenerate(means, facts)
        case ActionKind.LOGOUT | ActionKind.RENEW:
            facts.asked.logout = facts.asked.logout or kind is ActionKind.LOGOUT
            by_person = plan.proof is not None and plan.proof.ground is Ground.PERSON
            await _call(facts, kind, REMOTE_TIMEOUT, confirmed=by_person)
    return ""


async def begin_run(means: Means, facts: Facts, *, again: bool) -> None:
    """Start or restart a worker by the agent: it is held to its limits, and a stop may interrupt
    it. The worker reads its settings from instance.json beside its session."""
    seats = means.seats
    await means.registry.hold_copy(facts)
    if not is_written(facts):
        await means.registry.save(facts)
        if facts.leased and not is_written(facts):  # its worker would run without a lease
            raise errors.TryLater(f"cannot start {facts.id}: {facts.saved.unwritten}")
    seats.limit_memory(facts)
    if facts.unit.state is UnitState.FAILED or facts.action.started_run or facts.record.seen_run:
        # The host's burst limit is against crash loops: starts by the agent must not count.
        await seats.reset_failed(facts)
    facts.action.is_start = True
    try:
        await (seats.restart if again else seats.start)(facts)
    finally:
        facts.action.is_start = False
        facts.action.started_run = (await seats.status(facts)).run


async def _set_aside(means: Means, facts: Facts, plan: Plan) -> str:
    """Repeating it does no harm. A repair clears `paired` in the record first, so that no
    start after a kill uses the old pairing; a renewal clears it afterwards."""
    if plan.repair:
        if not facts.instance.backend:
            # The worker has stopped: what was said of its files can be checked.
            if plan.proof is not None and plan.proof.ground is Ground.DAMAGED_FILES:
                await _until_still(means.registry.root / facts.id)
            await _look_at_files(means, facts)
            if plan.proof is not None and not plan.proof.stands(facts.folder.files):
                facts.forgive(start_asked=True)
                raise errors.VaultError(f"cannot clean up {facts.id}: no file of it is damaged")
        facts.forgive(paired=False, account="")
        await means.registry.save(facts)
        files.failpoint("cleanup_reset")
    if facts.instance.backend:
        return ""  # its server took the keys away itself, and keeps nothing here
    why = "cleaned up" if plan.repair else f"the pairing ended: {facts.record.reason}"
    async with means.keeping.ending(facts):
        name = await asyncio.to_thread(set_aside, means.registry.root, facts, why)
    facts.saved.identity = None  # the new folder's file knows less
    await _look_at_files(means, facts)
    return name


async def _until_still(folder: Path) -> None:
    """Wait until the files stop changing. A person may be copying them back."""
    before = set[object]()
    while before != (now := await asyncio.to_thread(_stamps, folder)):
        before = now
        await asyncio.sleep(STILL)


def _stamps(folder: Path) -> set[object]:
    with suppress(OSError):  # of one that goes meanwhile
        return {(it.st_ctime_ns, it.st_size) for it in map(Path.lstat, folder.rglob("*"))}
    return {time.time_ns()}


async def _look_at_files(means: Means, facts: Facts) -> None:
    """Look at files that were replaced: findings in the old ones must not stay."""
    asked = means.registry.root / facts.id, facts.instance.engine
    facts.folder.files = (await asyncio.to_thread(tree.inspect, *asked)).files


async def _regenerate(means: Means, facts: Facts) -> None:
    await asyncio.sleep(BURST)
    peers = failing_peers(facts, means.settings.config.crypto)
    if not peers and not entry_of(facts.instance.engine).finds_records:
        return  # what failed is read again: the new keys are not to be taken away
    limit = REMOTE_TIMEOUT if facts.instance.backend else CALL_TIMEOUT
    try:
        await _call(facts, "regenerate_keys", limit, peers=list(peers))
    except errors.WaError as error:
        if error.code != ladder.NOTHING_TO_REMOVE:  # else the keys are new already
            facts.counters.count("key_regenerations", "failed")
        raise
    facts.counters.count("key_regenerations", "done")
    # Without a peer the engine took out damaged records, on a server it always does: errors
    # that named no peer.
    unnamed = ("",) if facts.instance.backend or not peers else ()
    facts.crypto = note_regenerated(facts.crypto, (*peers, *unnamed), clock.boot_now())


async def _call(facts: Facts, do: str, timeout: float, **arguments: object) -> None:
    if facts.link is None:
        raise errors.LinkError(f"cannot {do} {facts.id}: its worker does not answer", code="gone")
    await facts.link.call(do, arguments, timeout=timeout)


def set_aside(root: Path, facts: Facts, why: str) -> str:
    """Retire the folder of a session that is over and lay out an empty one: its name in the trash.

    Its worker does not run; the caller writes down what must outlive a kill in between. Repeating
    it does no harm: an earlier agent may have done a part.
    """
    with restore.carried(root, facts.id):
        if (root / facts.id).exists():
            with unless_unusable():  # a folder that cannot be read goes as it is
                restore.note_own_files(root, facts.id, facts.instance.engine, facts.record.account)
            name = folders.retire(root, facts.id, why).name
        else:
            own = (it.name for it in folders.list_trash(root) if it.id == facts.id)
            name = next(own, "nothing")
        files.failpoint("set_aside")
        identity.create(root, facts.instance)
        if back := restore.give_back(root, facts.id):
            words = "%d files or folders are none of the pairing that ended, and stay: %s"
            log.info(words, len(back), clean(", ".join(back))[:300], extra=about(facts.id))
    return name


# A session's repair: asks the core for its next step, and writes down how the step went. Saved
# before each step begins and after it ended: the next agent goes on with it.

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
    RecoveryKind.LOGOUT_RESTART: (ActionKind.LOGOUT, ActionKind.RESTART, ActionKind.SET_ASIDE),
    RecoveryKind.CLEANUP: (ActionKind.RENEW, ActionKind.SET_ASIDE),
}
"""On a backend: its server has the files; once the server gave the pairing up, so does the
agent."""


def plan_step(decision: ladder.Decision, repair: Repair, *, remote: bool) -> Plan:
    """Return the plan of a repair's step. `repair`: as it stands once the step has begun."""
    actions = (_ACTIONS_REMOTE if remote else _ACTIONS)[decision.kind]
    return Plan(decision.kind.value, actions, decision.reason, repair, proof=decision.proof)


Next = tuple[Plan | None, float | None]
"""The plan to carry out now, and the boot time of the next look."""


async def plan_repair(means: Means, facts: Facts, verdict: HealthVerdict) -> Next:
    """Return the next step of the session's repair, which begins here if it is needed."""
    now_wall, registry = time.time(), means.registry
    if not _has_repair(registry, facts, verdict, now_wall):
        return None, None
    case = await _case_of(registry, facts, verdict)
    before = facts.repair  # again after that await: a request may have joined it
    if before is None or before.over:  # it was a request's, which could not be written
        return None, None
    proof = pairing.may_repair_end_it(case, before)
    facts.kept = proof if isinstance(proof, Kept) else None
    repair, decision = ladder.step_repair(case, before)
    if before.consent and not repair.consent:
        facts.note_dropped(before.goal, "was not carried out")
    if decision.idle:
        registry.gate.incidents.pass_turn(facts.id)
    if decision.kind is RecoveryKind.WAIT:
        facts.repair = repair
        if repair != before:
            await registry.save(facts)
        return None, clock.boot_now() + max(decision.not_before_wall - now_wall, 0.0)
    if not repair.over:
        # Before it begins, only failures of others that it has seen count.
        facts.repair = replace(before, calm=repair.calm)
        return plan_step(decision, repair, remote=bool(facts.instance.backend)), None
    gave_up = repair.trouble is Trouble.SUSPECT and repair.ending is Ending.GAVE_UP
    lasting = pairing.may_repair_end_it(case, replace(repair, goal=Goal.WORKING_QR))
    if gave_up and facts.instance.backend and not isinstance(lasting, Kept):
        # The server has come up without the pairing again and again: no file of it can come
        # back. The server's record decides: a person scans its code.
        facts.forgive(paired=False, account="")
    facts.repair = repair
    registry.statistics.note(repair)
    detail = {"ending": repair.ending, "seconds": round(repair.seconds, 1)}
    facts.note("repair_over", decision.reason, Category.RECOVERY, **detail)
    await registry.save(facts)
    return None, None


def note_step(config: Config, facts: Facts, plan: Plan, outcome: Outcome) -> None:
    """Count a repair's step, and note how it went."""
    kind, repair, counters = RecoveryKind(plan.name), facts.repair, facts.counters
    if facts.instance.backend and kind is not RecoveryKind.BACK_UP:
        facts.next_probe = facts.next_deep = 0.0
        if outcome.ok:
            # The server begins the session again: earlier claims prove nothing, and its time starts
            # here. Failed pings stay until a probe says otherwise.
            facts.begun_at = facts.run.linked_since = clock.boot_now()
            facts.run.claim = None
    counters.repair_steps[(kind.value, "done" if outcome.ok else "failed")] += 1
    counters.repair_seconds += outcome.seconds
    if outcome.ok and kind in ladder.ENDING_STEPS:
        counters.count("cleanups", repair.goal if repair else Goal.HEAL)
    if outcome.ok and kind in (RecoveryKind.RECONNECT, RecoveryKind.RESTART):
        if facts.instance.backend and repair is not None and repair.trouble is Trouble.KEYS:
            # The same errors ask for no second step for a while. This life of the agent knows
            # only after its own try for which contacts no new keys are to be had.
            tried = repair.regenerated and not repair.resumed
            peers = failing_peers(facts, config.crypto) if tried else ()
            facts.crypto = note_regenerated(facts.crypto, (*peers, ""), clock.boot_now())
        # Old errors prove nothing about a new session.
        facts.crypto = replace(facts.crypto, errors=())
    if repair is not None:
        told, policy = {"backup": outcome.made, "refusal": outcome.refusal}, config.recovery
        facts.repair = ladder.after_action(repair, kind, outcome.ok, policy, time.time(), **told)


def _has_repair(registry: Registry, facts: Facts, verdict: HealthVerdict, now_wall: float) -> bool:
    if facts.repairing:
        return True
    if facts.repair:
        facts.repair = facts.repair.outlive(healthy=verdict.healthy)
    policy, away_since = registry.settings.config.recovery, facts.folder.away_since
    if away_since is not None and clock.boot_now() - away_since < policy.suspect_settle:
        return False  # the folder that was moved away may come back: its place must be free
    released = registry.gate.incidents.released_wall(facts)
    if not ladder.wants_repair(verdict, facts.repair, policy, now_wall, released_wall=released):
        return False
    facts.repair = ladder.begin_repair(verdict, Goal.HEAL, now_wall)
    return True


async def _case_of(registry: Registry, facts: Facts, verdict: HealthVerdict) -> pairing.Case:
    gate, crypto = registry.gate, registry.settings.config.crypto
    newest, readable = None, False
    with going_on():
        newest = await asyncio.to_thread(snapshots.newest_good, registry.root, facts.id)
        readable = True
    begun = facts.repair.started_wall if facts.repair else time.time()
    # The rest is read after that await: an incident may have been declared meanwhile. A verdict
    # from while its backend was away proves nothing, though the backend may be back.
    waits = bool(gate.away(facts)) or facts.wait.reason in AWAY
    return pairing.Case(
        *(facts, verdict, registry.settings.config.recovery, time.time()),
        well=gate.incidents.well(facts) and not waits,
        odd_one_out=gate.incidents.odd_one_out(facts),
        another_connected=gate.incidents.another_connected(facts),
        can_log_out=bool(facts.instance.backend),
        canary=not (waits or gate.incidents.wait_reason(facts)),
        # Where the copies cannot be read, one of them may be good: nothing ends the pairing.
        good_snapshot=newest is not None or not readable,
        may_roll_back=readable and not file_rules(facts.instance.engine).key_based,
        copied=gate.fleet.has_copy(facts.id),
        peers=failing_peers(facts, crypto),
        finds_records=entry_of(facts.instance.engine).finds_records,
        reads=not facts.counts_messages  # its engine does not tell
        or bool(forget_old(facts.crypto, crypto, clock.boot_now()).messages)
        or facts.inbound.last_wall >= begun - crypto.window,
    )
