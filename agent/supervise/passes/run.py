"""One pass for one instance: observe, judge, decide and plan, act, record."""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from agent.clock import boot_now
from agent.core.health import HealthPolicy, judge_health
from agent.core.model import (
    Action,
    ActionKind,
    Category,
    ConnectionStatus,
    Health,
    HealthVerdict,
    JournalEntry,
    Observation,
    Outcome,
    SessionRecord,
    UnitState,
)
from agent.core.observed import waits_for_network
from agent.core.reach import UNREACHABLE
from agent.core.reasons import reason_of
from agent.core.reconcile import next_deadline, plan_actions
from agent.core.reconnect import after_refusal, after_try, forgive, spare_unreached
from agent.core.words import SUSPECT
from agent.failpoint import failpoint
from agent.log import bound
from agent.supervise.facts import Facts
from agent.supervise.passes.act import Hands, execute, hold_to_limits, to_its_end
from agent.supervise.passes.findings import Findings
from agent.supervise.passes.lost_folder import holds_the_only_copy, save_from_worker
from agent.supervise.passes.observe import Senses, observe, picture
from agent.supervise.passes.record import Rememberer, note_circuit, note_restarts
from agent.supervise.passes.repair import Ladder
from agent.supervise.story import entry, is_trouble
from agent.supervise.turns.incidents import Incidents
from agent.supervise.turns.turns import Turns

log = logging.getLogger(__name__)

TRIES = (ActionKind.START, ActionKind.RESTART, ActionKind.CONNECT)

RETRY_HELD = 5.0
"""Seconds until one asks again that found another's trial under way."""

SaveRecord = Callable[[Facts, Sequence[JournalEntry]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Passes:
    """Runs passes; everything it needs is handed in once."""

    senses: Senses
    hands: Hands
    rememberer: Rememberer
    turns: Turns
    ladder: Ladder
    incidents: Incidents
    findings: Findings
    policy: Callable[[], HealthPolicy]
    offer_new_qr: Callable[[], bool]
    """After a logout: offer a new QR code, or stay disconnected?"""
    save: SaveRecord
    touch: Callable[[Facts], None]

    async def run(self, facts: Facts) -> float | None:
        """Return when this instance must be looked at again at the latest."""
        async with facts.busy:
            return None if facts.gone else await self._run(facts)

    async def _run(self, facts: Facts) -> float | None:
        before, unit_before, known = facts.record, facts.unit, facts.observed
        begun = boot_now()
        await observe(facts, self.senses)
        await hold_to_limits(facts, self.hands)
        self.turns.room.note(facts)
        entries = self.rememberer.note_operator(facts, facts.unit)
        if known:
            entries += note_restarts(facts, unit_before, facts.unit)
        if sentence := await save_from_worker(facts, self.hands.host, self.hands.session_root):
            entries.append(entry(facts, "folder_saved", sentence, Category.RECOVERY))
        observation, verdict = self._judge(facts)
        judged = facts.record
        entries += self.rememberer.remember(facts, observation, verdict)
        self.findings.watch_hour(facts)
        self.incidents.judged(facts, verdict)
        if facts.record is not judged or facts.hold != self._hold(facts):
            # The record has changed, or what many share: judge what is true now.
            observation, verdict = self._judge(facts)
        entries += self._note_circuit(facts, before)
        self.ladder.note_check(boot_now() - begun)
        await self._record(facts, before, verdict, entries)
        self._settle(facts, verdict)
        decided = boot_now()
        again = await self._decide_and_act(facts, observation, verdict)
        self.turns.gates.leave(facts.id, decided)
        facts.observed = True
        self.touch(facts)
        return again

    def _hold(self, facts: Facts) -> str:
        away = self.senses.backends.hold(facts) or self.turns.reaching.hold(facts)
        return away or self.incidents.hold(facts) or self.turns.room.hold(facts)

    def _judge(self, facts: Facts) -> tuple[Observation, HealthVerdict]:
        policy = self.policy()
        facts.hold = self._hold(facts)
        if facts.hold == UNREACHABLE:
            facts.record = spare_unreached(facts.record, policy.reconnect, time.time())
        observation = picture(
            facts,
            self.senses.host,
            policy.reconnect,
            hold=facts.hold,
            hold_sentence=self.turns.says(facts),
            signals=self.findings.signals(facts),
            back_at=self.turns.reaching.back_at(facts),
        )
        if not facts.hold and waits_for_network(observation):
            self.turns.reaching.doubt(facts)
        return observation, judge_health(observation, policy, boot_now())

    async def _decide_and_act(
        self, facts: Facts, observation: Observation, verdict: HealthVerdict
    ) -> float | None:
        """Requests first, then the ladder, then wanted against actual state."""
        begun, policy = boot_now(), self.policy()
        again = next_deadline(observation, verdict, policy, boot_now())
        actions = self._asked_for(facts, observation, verdict)
        if not actions:
            # A repair may end the worker, which holds the only copy of what it had on the disk.
            bound_to_it = holds_the_only_copy(facts)
            wait = None if bound_to_it else await self.ladder.follow(facts, observation, verdict)
            if wait is not None and wait <= boot_now():
                return wait  # a step was done: look at what it did before anything else
            again = _sooner(again, wait)
            begun = boot_now()
            actions = plan_actions(
                observation, verdict, policy, boot_now(), ladder=True, repair=facts.repair.last
            )
        if holds_the_only_copy(facts):
            actions = [one for one in actions if one.kind is ActionKind.CONNECT]
        self.senses.checked("recovery", boot_now() - begun)
        if actions:
            wait = await self._act(facts, actions)
            again = boot_now() if wait is None else wait
        return again

    def _asked_for(
        self, facts: Facts, observation: Observation, verdict: HealthVerdict
    ) -> list[Action]:
        """What neither the ladder nor the reconnecting decides: a logout's end, a restart."""
        if facts.asked.restart_for and not self._may_restart(facts):
            facts.asked.restart_for, facts.memory_restart_at = "", None
        if not observation.desired.should_run or facts.unit.job_pending:
            return []
        if holds_the_only_copy(facts):
            return []
        if self._must_renew(facts, observation):
            return [Action(ActionKind.RENEW, verdict.sentence)]
        if facts.record.restart_of and facts.record.restart_of == facts.unit.run:
            return [Action(ActionKind.RESTART, "an operator asked for a restart")]
        if facts.asked.restart_for:
            return [Action(ActionKind.RESTART, facts.asked.restart_for)]
        asked, facts.asked.start = facts.asked.start, False
        if asked and facts.unit.state is UnitState.FAILED:
            # By ourselves a wrong configuration is not tried again; a person may have put it right.
            why = "an operator asked for a start"
            return [Action(ActionKind.RESET_FAILED, why), Action(ActionKind.START, why)]
        return []

    def _may_restart(self, facts: Facts) -> bool:
        """Of its own a restart can wait: not while its engine fails, and a new run needs none."""
        return facts.unit.state is UnitState.ACTIVE and self.incidents.well(facts)

    def _must_renew(self, facts: Facts, observation: Observation) -> bool:
        """The phone ended the pairing: its files are evidence now, a scan makes a new session."""
        reason = facts.record.reason
        said = observation.claim.claim.reason if observation.claim else reason
        return (
            observation.desired.should_run
            and facts.record.paired
            and bool(reason)
            and said in (reason, SUSPECT)  # a worker begun since found its store unpaired
            and reason_of(reason).scan_again
        )

    async def _act(self, facts: Facts, actions: Sequence[Action]) -> float | None:
        """Carry the plan out; stop at the first thing that fails. A time: not before then."""
        for action in actions:
            by_operator = facts.record.restart_of and action.kind is ActionKind.RESTART
            if action.kind in TRIES and not by_operator:
                reconnects = action.kind is ActionKind.CONNECT
                wait = self.turns.ask(facts, reconnects=reconnects)
                if wait is not None:
                    return wait
            if action.kind in TRIES and not self.senses.backends.may_begin(facts):
                self.turns.not_used(facts)
                return boot_now() + RETRY_HELD
            await self._begin(facts, action)
            outcome = await self._carry_out(facts, action)
            await self._record_outcome(facts, outcome)
            if not outcome.ok:
                # What failed for a cause that stays (rights, disk) must not be tried in a loop.
                facts.action.failures = min(facts.action.failures + 1, 6)
                return boot_now() + 0.25 * 2.0**facts.action.failures
        facts.action.failures = 0
        return None

    async def _carry_out(self, facts: Facts, action: Action) -> Outcome:
        begun = boot_now()
        outcome = await to_its_end(facts, execute(facts, action, self.hands), action.kind)
        return outcome or Outcome(action, False, boot_now() - begun, "interrupted")

    async def _begin(self, facts: Facts, action: Action) -> None:
        """Count the try and write down what is about to happen, before it does."""
        by_operator = facts.record.restart_of != "" and action.kind is ActionKind.RESTART
        facts.asked.try_at_once = facts.asked.past_looks = False
        if by_operator:
            facts.counters.by_word["restarts"]["operator"] += 1
            # What its worker said until now is no word against what a person asked for.
            facts.record = replace(forgive(facts.record), restart_of="")
        elif action.kind is ActionKind.RESTART and facts.asked.restart_for:
            facts.counters.by_word["restarts"]["agent"] += 1
            facts.asked.restart_for = ""
        elif action.kind in TRIES:
            rules = self.policy().reconnect
            facts.record = after_try(facts.record, rules, time.time(), self.rememberer.jitter())
            if action.kind is ActionKind.RESTART:
                facts.counters.by_word["restarts"]["agent"] += 1
        elif action.kind is ActionKind.STOP:
            facts.record = replace(facts.record, stopped_run=facts.record.seen_run)
        elif action.kind is ActionKind.RENEW:
            # Still paired in the record: a renewal that is cut short or fails is begun again.
            facts.record = replace(facts.record, stopped_run=facts.record.seen_run)
        attempt = facts.record.attempts if action.kind in TRIES and facts.lost_because else 0
        count = f" (attempt {attempt} of {self.policy().reconnect.attempts})"
        said = entry(
            facts,
            "action",
            f"{action.kind}: {action.reason}{count if attempt else ''}",
            Category.RECONNECT if attempt else Category.RECOVERY,
            action=action.kind,
        )
        await self.save(facts, [said])
        self._tell(facts, said)
        failpoint("action_begun")

    async def _record_outcome(self, facts: Facts, outcome: Outcome) -> None:
        kind, before = outcome.action.kind, facts.record
        if kind in TRIES:
            facts.action.refusal = outcome.detail
        if kind in TRIES and not outcome.ok:
            self.turns.settled(facts)
            rules = self.policy().reconnect
            facts.record = after_refusal(facts.record, outcome.refusal, rules, time.time())
        if kind is ActionKind.RENEW and outcome.ok:
            failpoint("renew_done")
            facts.record = replace(facts.record, paired=False, account="")
            facts.saved.identity_behind = True
            if self.offer_new_qr():
                # From here on it is one that was never paired: it may start and offer a QR.
                facts.record = forgive(facts.record)
        opened = self._note_circuit(facts, before)
        word = "done" if outcome.ok else f"failed: {outcome.detail}"
        said = entry(
            facts,
            "outcome",
            f"{kind}: {word} in {outcome.seconds:.2f} s",
            Category.RECOVERY,
            action=kind,
            ok=outcome.ok,
            seconds=round(outcome.seconds, 3),
        )
        await self.save(facts, [said, *opened])
        self._tell(facts, said, failed=not outcome.ok)
        for one in opened:
            self._tell(facts, one)

    def _note_circuit(self, facts: Facts, before: SessionRecord) -> list[JournalEntry]:
        return note_circuit(facts, before, self.policy().reconnect.breaker, time.time())

    async def _record(
        self,
        facts: Facts,
        before: SessionRecord,
        verdict: HealthVerdict,
        entries: Sequence[JournalEntry],
    ) -> None:
        facts.sentence = verdict.sentence
        for one in entries:
            self._tell(facts, one)
        if (
            entries
            or facts.record != before
            or facts.saved.identity_behind
            or facts.saved.identity is None
        ):
            await self.save(facts, entries)

    def _settle(self, facts: Facts, verdict: HealthVerdict) -> None:
        """A start under way came to something; being stuck is something too."""
        on_its_way = (ConnectionStatus.INITIALIZING, ConnectionStatus.LOADING)
        if verdict.state not in on_its_way or verdict.health is Health.STUCK:
            self.turns.settled(facts)

    def _tell(self, facts: Facts, one: JournalEntry, *, failed: bool = False) -> None:
        level = logging.WARNING if failed or is_trouble(one) else logging.INFO
        bound(one.category, facts.id, __name__).log(level, "%s", one.sentence)


def _sooner(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)
