"""Passes: when they happen, and one from top to bottom: observe, judge, record, decide, act.

A pass is woken by events, by the nearest deadline, or by the slow tick. At most one runs per
instance; a wake during a pass means one more pass after it. An event carries no command, so losing
one costs time, never correctness.
"""

import asyncio
import heapq
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent import errors, files, log
from agent.clock import boot_now
from agent.core import breaker, reasons, reconnect, session
from agent.core.health import HealthPolicy, as_asked, judge_health
from agent.core.model import Category, Health, HealthVerdict, InstanceId, SessionRecord, UnitState
from agent.core.reconcile import ActionKind, Outcome, Plan, next_deadline, plan_actions, plan_asked
from agent.supervise.act import Next, carry_out, note_step, plan_repair
from agent.supervise.facts import SESSION_CIRCUIT_CLOSED, SESSION_CIRCUIT_OPEN, Facts, Settings
from agent.supervise.gate import Gate
from agent.supervise.observe import holds_the_only_copy, observe
from agent.supervise.record import Means, note_operator, remember, signals_of
from agent.supervise.registry import is_written

TURN = 10.0
"""Longest sleep: the watchdog asks whether the loop turns."""
TICKS = ((50.0, 8.0), (10.0, 2.0), (0.0, 0.001))
"""A deadline later than the first figure falls on a multiple of the second, so that many share one
wake-up: after the longest time one at which the process host hears its workers."""


class Wakes:
    """Woken instances, in order; wake() never waits."""

    def __init__(self) -> None:
        self.woken: dict[InstanceId, None] = {}
        self.rung = asyncio.Event()

    def wake(self, instance: InstanceId) -> None:
        self.woken[instance] = None
        self.rung.set()


@dataclass(slots=True, eq=False, repr=False)
class Loop:
    """Runs passes side by side, bounded, one at a time for each instance.

    The sessions of a backend share a lane, and all that have none another one. Each lane has its
    own places, so that a slow server delays no others.
    """

    wakes: Wakes
    run_pass: Callable[[InstanceId], Awaitable[float | None]]
    """Returns when (boot clock) the instance must be looked at again at the latest."""
    settings: Settings
    facts: Mapping[InstanceId, Facts]
    parallel: int = 256
    lane_parallel: int = 64
    _running: dict[InstanceId, str] = field(init=False, default_factory=dict)
    """Session with a pass under way → the lane of that pass."""
    _due: dict[InstanceId, float] = field(init=False, default_factory=dict)
    _heap: list[tuple[float, InstanceId]] = field(init=False, default_factory=list)
    _sleeps_until: float = field(init=False, default=0.0)
    _stopping: bool = field(init=False, default=False)
    _full_since: float | None = field(init=False, default=None)
    """Boot time since which all places are taken, a pass waits for one, and none has ended."""
    turned_at: float = field(init=False, default_factory=boot_now)
    passes: int = field(init=False, default=0)
    pass_seconds: float = field(init=False, default=0.0)

    def blocked(self, now: float) -> float:
        """Seconds for which no pass has ended while others wait for a place."""
        return 0.0 if self._full_since is None else now - self._full_since

    def stop(self) -> None:
        """Begin no further pass."""
        self._stopping = True
        self.wakes.rung.set()

    async def run(self) -> None:
        """Serve until `stop`; passes under way are finished or cancelled by the caller's group."""
        async with asyncio.TaskGroup() as passes:
            while not self._stopping:
                self.turned_at = now = boot_now()
                while self._heap and self._heap[0][0] <= now:
                    at, instance = heapq.heappop(self._heap)
                    if self._due.get(instance) == at:  # else a newer deadline replaced this one
                        del self._due[instance]
                        self.wakes.woken[instance] = None
                self._begin_passes(passes, now)
                await self._sleep(now)

    def _begin_passes(self, group: asyncio.TaskGroup, now: float) -> None:
        taken = Counter(self._running.values())
        for instance in list(self.wakes.woken):
            lane = facts.instance.backend if (facts := self.facts.get(instance)) else ""
            if taken[lane] >= (self.lane_parallel if lane else self.parallel):
                if not lane:
                    self._full_since = self._full_since or now
                continue
            if instance not in self._running:
                del self.wakes.woken[instance]
                self._running[instance] = lane
                taken[lane] += 1
                group.create_task(self._one_pass(instance), name=f"pass {instance}")

    async def _sleep(self, now: float) -> None:
        """Sleep until an instance is woken or the nearest is due; at most TURN."""
        self._sleeps_until = min([now + TURN, *(at for at, _ in self._heap[:1])])
        rung, delay = self.wakes.rung, self._sleeps_until - now
        timer = asyncio.get_running_loop().call_later(delay, rung.set)
        await rung.wait()
        timer.cancel()
        rung.clear()

    async def _one_pass(self, instance: InstanceId) -> None:
        begun = boot_now()
        again: float | None = begun + self.settings.config.health.interval
        try:
            again = await self.run_pass(instance)
        except Exception as error:
            # One instance's failure must not end the others' supervision.
            words = "a pass for %s failed; the next one tries again: %s"
            bug = None if isinstance(error, errors.WaError) else error
            log.error(words, instance, error, exc_info=bug, extra=log.about(instance))
        finally:
            if not self._running.pop(instance):
                self._full_since = None
            if self.wakes.woken:  # the pass that waits for this place, or was woken during this one
                self.wakes.rung.set()
        now = boot_now()
        self.passes += 1
        self.pass_seconds += now - begun
        if again is not None:
            at = max(again, now + 0.01)
            tick = next(tick for far, tick in TICKS if at - now > far)
            at = math.ceil(at / tick) * tick
            self._due[instance] = at
            heapq.heappush(self._heap, (at, instance))
            if at < self._sleeps_until:
                self.wakes.rung.set()


MOST_FAILURES = 6
"""Failed plans in a row that lengthen the pause before the next."""


async def run_pass(means: Means, facts: Facts) -> float | None:
    """Return when this instance must be looked at again at the latest."""
    async with facts.busy:
        if facts.gone:
            return None
        begun, before = boot_now(), facts.record
        registry, gate, settings = means.registry, means.gate, means.settings
        # Observe, and note what operators or its host did to its worker.
        await observe(means, facts)
        registry.statistics.checked += 1
        registry.statistics.check_seconds += boot_now() - begun
        policy = settings.config.health_policy
        policy = replace(policy, stuck=policy.stuck + gate.backends.slack(facts))
        # A session that rests as in the pass before is judged as it was, or has a whole pass.
        here = (settings.config, facts.instance, facts.record, facts.of_rooms, facts.unit)
        if facts.rested == here and (verdict := _judge(gate, facts, policy)) == facts.verdict:
            remember(gate, facts, verdict)
            if facts.record is before and facts.at_rest and not facts.unsaid:
                return _next_look(facts, verdict, policy)
        # The settings may have changed, and the host may have begun a run.
        means.seats.limit_memory(facts)
        gate.note_look(facts)
        note_operator(facts, past_us=means.operators_act_past_us)
        # Judge; once more where the verdict's entries changed the record.
        verdict = _judge(gate, facts, policy)
        judged = facts.record
        remember(gate, facts, verdict)
        gate.incidents.judged(facts, verdict)
        waits = gate.ask(facts) or session.Wait()
        if facts.record is not judged or facts.wait.reason != waits.reason:
            verdict = _judge(gate, facts, policy)
        facts.sentence = verdict.sentence
        note_circuit(facts, before, settings.config.reconnect.breaker)
        # Record; a session that is at rest, and recorded, needs no decision.
        recorded = facts.record == facts.saved.record and not facts.unsaid and is_written(facts)
        if recorded and facts.observed and facts.at_rest:
            facts.rested = here if facts.record is before else ()
            return _next_look(facts, verdict, policy)
        if not recorded:
            await registry.save(facts)
        if verdict.state not in session.STARTING or verdict.health is Health.STUCK:
            gate.queues.try_ended(facts.id)  # its start has ended, be it stuck
        gate.note_claim(facts)
        # Decide and act.
        plan, again = await _decide(means, facts, verdict, policy)
        if plan is not None:
            outcome = await carry_through(means, facts, plan)
            again = boot_now()
            if not plan.repair:
                # A cause that stays (rights, disk) must not lead to a tight loop.
                failures = 0 if outcome.ok else min(facts.action.failures + 1, MOST_FAILURES)
                facts.action.failures = failures
                if failures:
                    again += 0.25 * 2.0**failures
        gate.queues.leave(facts.id)
        facts.observed = True
        if facts.instance.backend and facts.next_probe > boot_now():
            again = facts.next_probe if again is None else min(again, facts.next_probe)
        return again


def _judge(gate: Gate, facts: Facts, policy: HealthPolicy) -> HealthVerdict:
    facts.wait = gate.ask(facts) or session.Wait()
    if facts.wait.reason == reasons.UNREACHABLE:
        facts.record = reconnect.spare_unreached(facts.record, policy.reconnect, time.time())
    facts.at, facts.at_wall = now, now_wall = boot_now(), time.time()
    earliest = reconnect.not_before(facts.record, policy.reconnect, now, now_wall)
    facts.not_before = now if facts.asked.try_at_once and not facts.banned else earliest
    facts.signals = (*signals_of(gate.settings, facts), *gate.backends.signals(facts))
    facts.turns_before = gate.queues.before(facts.id)
    facts.back_at = gate.reaching.of(facts).back_at
    if not facts.wait.reason and facts.waits_for_network:
        gate.reaching.doubt(facts)
    verdict = judge_health(facts, policy, boot_now())
    return as_asked(verdict) if facts.asked.logout else verdict


def _next_look(facts: Facts, verdict: HealthVerdict, policy: HealthPolicy) -> float | None:
    """At rest its worker speaks up first: it is looked at for its deep probe and its proof, in time
    for a second ping where one is lost. Those that began together, or were held up together, part
    again; the loop's tick comes on top."""
    if not facts.at_rest:
        return next_deadline(facts, verdict, policy, boot_now())
    rest = min(policy.deep, policy.proof_limit - 2 * policy.timeout) * random.uniform(0.78, 0.89)
    return boot_now() + min(rest, policy.proof_limit + 0.001 - (facts.proof_age or 0.0))


async def _decide(means: Means, facts: Facts, verdict: HealthVerdict, policy: HealthPolicy) -> Next:
    """Return the plan: orders first, then the repair, then wanted against actual state."""
    again = _next_look(facts, verdict, policy)
    only_copy = holds_the_only_copy(facts)
    plan = None if only_copy else _plan_asked(means.gate, facts, verdict)
    if plan is None and not only_copy:
        plan, repair_again = await plan_repair(means, facts, verdict)
        if plan is not None:
            if (wait := means.gate.ask(facts, plan)) is None:
                return plan, None
            plan, repair_again = None, wait.again
        again = min((at for at in (again, repair_again) if at is not None), default=None)
    if plan is None:
        plan = plan_actions(facts, verdict, policy, boot_now())
    if only_copy and plan is not None and plan.actions != (ActionKind.CONNECT,):
        plan = None  # it may end the worker, which has the only copy of the session
    if plan is not None and (wait := means.gate.ask(facts, plan)) is not None:
        return None, wait.again
    return plan, again


def _plan_asked(gate: Gate, facts: Facts, verdict: HealthVerdict) -> Plan | None:
    asked = facts.asked
    # A graceful restart can wait: not while its engine fails, and a new run needs none.
    active = facts.unit.state is UnitState.ACTIVE
    if asked.restart_for and not (active and gate.incidents.well(facts)):
        asked.restart_for, facts.memory_restart_at = "", None
    plan = plan_asked(facts, verdict, restart_for=asked.restart_for)
    if facts.record.start_asked and not (plan or facts.unit.job_pending) and facts.should_run:
        # The next plan_actions starts it.
        facts.record = replace(facts.record, start_asked=False)
    return plan


async def carry_through(means: Means, facts: Facts, plan: Plan) -> Outcome:
    """Count the try, carry it out, and write both down: what is done before it happens, and how it
    went."""
    count, config = "", means.settings.config
    if plan.repair:
        facts.repair = plan.repair
        if plan.starts:
            facts.counters.count("restarts", "agent")
    else:
        count = _count_try(config.reconnect, facts, plan)
    # Until they are carried out the record has an operator's orders: a kill loses none.
    orders = {} if plan.repair else {"restart_of": "", "start_asked": False, "past_looks": False}
    if plan.logs_in and not plan.ordered:
        orders.pop("restart_of", "")  # a plain start or connect is no restart
    ended: Any = {name: none for name, none in orders.items() if getattr(facts.record, name)}
    category = Category.RECONNECT if count else Category.RECOVERY
    kind, step = ("repair", "step") if plan.repair else ("action", "action")
    facts.note(kind, f"{plan.name}: {plan.reason}{count}", category, **{step: plan.name})
    await means.registry.save(facts)
    files.failpoint("repair_begun" if plan.repair else "action_begun")
    outcome = await carry_out(means, facts, plan)
    before = facts.record = replace(facts.record, **ended)
    if plan.repair or plan.logs_in:
        facts.action.refusal = outcome.detail
        if not outcome.ok:
            means.gate.queues.try_ended(facts.id)
    if plan.repair:
        files.failpoint("repair_done")
        note_step(config, facts, plan, outcome)
    elif plan.logs_in and not outcome.ok:
        rules = config.reconnect
        facts.record = reconnect.after_refusal(facts.record, outcome.refusal, rules, time.time())
    elif outcome.ok and ActionKind.SET_ASIDE in plan.actions:
        # The files of the pairing that ended are in the trash.
        files.failpoint("renew_done")
        facts.record = replace(facts.record, paired=False, account="")
        if config.sessions.on_logout == "qr":
            # It may start as one that was never paired, and show a QR.
            facts.forgive()
    word = "done" if outcome.ok else f"failed: {outcome.detail}"
    sentence = f"{plan.name}: {word} in {outcome.seconds:.2f} s"
    told = {step: plan.name, "ok": outcome.ok, "seconds": round(outcome.seconds, 3)}
    if plan.repair:
        told["backup"] = outcome.made
    facts.note("repaired" if plan.repair else "outcome", sentence, category, **told)
    note_circuit(facts, before, config.reconnect.breaker)
    await means.registry.save(facts)
    return outcome


def _count_try(rules: reconnect.ReconnectPolicy, facts: Facts, plan: Plan) -> str:
    """Count the attempt; return its number in a phrase for people."""
    facts.asked.try_at_once = False
    if plan.ordered:
        facts.counters.count("restarts", "operator")
        # An operator's order outweighs the reason why its worker is down.
        facts.forgive()
        return ""
    if ActionKind.RESTART in plan.actions:
        facts.counters.count("restarts", "agent")
        if facts.asked.restart_for:
            facts.asked.restart_for = ""
            return ""
    if not plan.logs_in:
        return ""
    facts.record = reconnect.after_try(facts.record, rules, time.time(), random.random())
    if not facts.lost_because or not facts.record.attempts:
        return ""
    return f" (attempt {facts.record.attempts} of {rules.attempts})"


def note_circuit(facts: Facts, before: SessionRecord, policy: breaker.BreakerPolicy) -> None:
    """Note that the session's circuit opened or closed since `before`; not a failed trial."""
    was, now = before.breaker, facts.record.breaker
    if was.opened_at is None and now.opened_at is not None:
        last = facts.action.refusal or reasons.reason_of(facts.record.reason or "unknown").title
        opened = f"its circuit is open after {now.failures} failures in a row, the last: {last}"
        trial = f"one trial in {policy.pause:.0f} s, or now: wa-agent recover {facts.id}"
        sentence = f"{opened}; {trial} (it closes once it connects)"
        facts.note(SESSION_CIRCUIT_OPEN, sentence, Category.RECONNECT, failures=now.failures)
    if was.opened_at is not None and now.opened_at is None:
        facts.note(SESSION_CIRCUIT_CLOSED, "its circuit is closed again", Category.RECONNECT)
