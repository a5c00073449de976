"""A session's repair: asks the core for its next step, and writes down how the step went. Saved
before each step begins and after it ended: the next agent goes on with it."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent.clock import boot_now
from agent.core.crypto import note_regenerated
from agent.core.crypto import note_step as crypto_begins_again
from agent.core.figures import RepairStatistics
from agent.core.model import Category, HealthVerdict
from agent.core.observed import AWAY
from agent.core.reconcile import ActionKind, Outcome, Plan
from agent.core.reconnect import forgive
from agent.core.recovery.ladder import (
    UNPAIRING,
    begin_repair,
    join_repair,
    lapse_order,
    outlive_repair,
    wants_repair,
)
from agent.core.recovery.pairing import Case, may_repair_end_it
from agent.core.recovery.repair import (
    Circumstances,
    Consent,
    Decision,
    Ending,
    Goal,
    Kept,
    Proof,
    RecoveryKind,
    Repair,
    Trouble,
)
from agent.core.recovery.steps import after_action, step_repair
from agent.engines.catalog import entry_of, file_rules
from agent.log import about, going_on
from agent.supervise.facts import Facts, entry
from agent.supervise.gate import Gate
from agent.supervise.passes.act import Executor
from agent.supervise.passes.findings import failing_peers, reads_messages
from agent.vault.snapshots import newest_good

log = logging.getLogger(__name__)

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


def plan_step(decision: Decision, *, remote: bool) -> Plan:
    actions = (_ACTIONS_REMOTE if remote else _ACTIONS)[decision.kind]
    return Plan(decision.kind.value, actions, decision.reason, True, proof=decision.proof)


NO_EFFECT = "no_effect"
"""An engine's code for a step that its server answered and that changed nothing."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is next: a plan, with the repair that it is a step of, or nothing before `again`."""

    plan: Plan | None = None
    begun: Repair | None = None
    """The repair once the plan has begun."""
    again: float | None = None


@dataclass(slots=True)
class Ladder:
    """One repair at a time per instance; requests join it."""

    executor: Executor
    gate: Gate
    statistics: RepairStatistics = field(default_factory=RepairStatistics)

    async def decide(self, facts: Facts, verdict: HealthVerdict) -> Step:
        now_wall = time.time()
        if not self._has_repair(facts, verdict, now_wall):
            return Step()
        case = await self._case(facts, verdict)
        before = facts.repair.last  # again after that await: a request may have joined it
        assert before is not None
        proof = may_repair_end_it(case, before)
        facts.repair.kept = proof if isinstance(proof, Kept) else None
        repair, decision = step_repair(case, before)
        if before.consent and not repair.consent:
            said = "an operator's order (%s) was not carried out: it is dropped, ask again"
            log.warning(said, before.goal.replace("_", " "), extra=about(facts.id))
        if decision.idle:
            self.gate.incidents.nothing_to_try(facts)
        if decision.kind is RecoveryKind.WAIT:
            facts.repair.last = repair
            if repair != before:
                await self.executor.registry.save(facts)
            return Step(again=boot_now() + max(decision.not_before_wall - now_wall, 0.0))
        if repair.over:
            asked = replace(repair, goal=Goal.WORKING_QR)
            gave_up = repair.trouble is Trouble.SUSPECT and repair.ending is Ending.GAVE_UP
            lost = gave_up and bool(facts.instance.backend)
            if lost and isinstance(may_repair_end_it(case, asked), Proof):
                # The server has come up without the pairing again and again: no file of it can come
                # back. The server's record decides: a person scans its code.
                facts.record = replace(forgive(facts.record), paired=False, account="")
            await self._end(facts, repair, decision)
            return Step()
        plan = plan_step(decision, remote=bool(facts.instance.backend))
        # Before it begins, only failures of others that it has seen count.
        facts.repair.last = replace(before, calm=repair.calm)
        return Step(plan, repair)

    def request(self, facts: Facts, goal: Goal, consent: Consent) -> None:
        """A requested repair joins the running one, or begins."""
        last, facts.repair.kept = facts.repair.last, None
        if last is not None and not last.over:
            facts.repair.last = join_repair(last, goal, consent)
        else:
            facts.repair.last = begin_repair(facts.verdict, goal, time.time(), consent)

    def take_back(self, facts: Facts, before: Repair | None) -> None:
        """A request could not be written: nothing more is done by its word."""
        last, begun = facts.repair.last, 0 if before is None or before.over else before.acts
        if last is not None:
            facts.repair.last = before if last.acts == begun else lapse_order(last)

    def done(self, facts: Facts, plan: Plan, outcome: Outcome) -> None:
        """Count the step, and note how it went."""
        kind, repair, counters = RecoveryKind(plan.name), facts.repair.last, facts.counters
        if facts.instance.backend and kind is not RecoveryKind.BACK_UP:
            facts.next_probe = facts.next_deep = 0.0
            if outcome.ok:
                facts.begin_again(boot_now())
        counters.repair_steps[(kind.value, "done" if outcome.ok else "failed")] += 1
        counters.repair_seconds += outcome.seconds
        if outcome.ok and kind in UNPAIRING:
            counters.by_word["cleanups"][(repair.goal if repair else Goal.HEAL).value] += 1
        if outcome.ok and kind in (RecoveryKind.RECONNECT, RecoveryKind.RESTART):
            if facts.instance.backend and repair is not None and repair.trouble is Trouble.KEYS:
                # The same errors ask for no second step for a while. Of contacts this life knows
                # only after its own try that new keys with them are not to be had.
                tried = repair.regenerated and not repair.resumed
                peers = failing_peers(facts, self.gate.settings.config.crypto) if tried else ()
                facts.crypto = note_regenerated(facts.crypto, (*peers, ""), boot_now())
            # Old errors prove nothing about a new session.
            facts.crypto = crypto_begins_again(facts.crypto)
        if repair is not None:
            repair = after_action(
                repair,
                kind,
                outcome.ok,
                self.gate.settings.config.recovery,
                time.time(),
                backup=outcome.made if kind is RecoveryKind.BACK_UP else "",
                no_effect=outcome.refusal == NO_EFFECT,
                refusal=outcome.refusal,
            )
        facts.repair.last = repair

    def _has_repair(self, facts: Facts, verdict: HealthVerdict, now_wall: float) -> bool:
        if (last := facts.repair.last) is not None:
            if not last.over:
                return True
            if (outlived := outlive_repair(last, verdict)) != last:
                facts.repair.last = outlived
        policy, away_since = self.gate.settings.config.recovery, facts.folder.away_since
        if away_since is not None and boot_now() - away_since < policy.suspect_settle:
            return False  # the folder that was moved away may come back: its place must be free
        released = self.gate.incidents.released_wall(facts)
        if not wants_repair(verdict, facts.repair.last, policy, now_wall, released_wall=released):
            return False
        facts.repair.last = begin_repair(verdict, Goal.HEAL, now_wall)
        return True

    async def _case(self, facts: Facts, verdict: HealthVerdict) -> Case:
        policy, crypto = self.gate.settings.config.recovery, self.gate.settings.config.crypto
        newest, readable = None, False
        with going_on():
            newest = await asyncio.to_thread(newest_good, self.executor.registry.root, facts.id)
            readable = True
        begun_wall = facts.repair.last.started_wall if facts.repair.last else time.time()
        # The rest is read after that await: an incident may have been declared meanwhile. A verdict
        # from while its backend was away proves nothing, though the backend may be back.
        waits = bool(self.gate.away(facts)) or facts.wait.reason in AWAY
        reads = facts.inbound.last_wall >= begun_wall - crypto.window
        around = Circumstances(
            well=self.gate.incidents.well(facts) and not waits,
            odd_one_out=self.gate.incidents.odd_one_out(facts),
            another_connected=self.gate.incidents.another_connected(facts),
            can_log_out=bool(facts.instance.backend),
            canary=not (waits or self.gate.incidents.wait_reason(facts)),
            # Where the copies cannot be read, one of them may be good: nothing ends the pairing.
            good_snapshot=newest is not None or not readable,
            may_roll_back=readable and not file_rules(facts.instance.engine).key_based,
            peers=failing_peers(facts, crypto),
            finds_records=entry_of(facts.instance.engine).finds_records,
            reads=reads or reads_messages(facts, crypto),
        )
        return Case(facts, verdict, around, policy, time.time())

    async def _end(self, facts: Facts, repair: Repair, decision: Decision) -> None:
        facts.repair.last = repair
        self.statistics.note(repair)
        detail = {"ending": repair.ending, "seconds": round(repair.seconds, 1)}
        said = entry(facts, "repair_over", decision.reason, Category.RECOVERY, **detail)
        await self.executor.registry.save(facts, [said])
        if facts.repair.last is repair:  # else a request joined meanwhile
            facts.repair_ended()
