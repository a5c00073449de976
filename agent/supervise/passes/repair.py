"""Carries the ladder out: asks the core for the next step, does it, writes down how it went.

Saved before each step begins and after it ended, so that a repair that was cut off goes on
with the next life of the agent.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from agent.clock import boot_now
from agent.core.figures.repair_statistics import (
    RepairStatistics,
    note_check,
    note_repair,
    note_step,
)
from agent.core.findings.crypto import (
    CryptoPolicy,
    crypto_retry_delay,
    note_regenerated,
)
from agent.core.findings.crypto import note_step as crypto_begins_anew
from agent.core.model import (
    Category,
    Health,
    HealthVerdict,
    InstanceId,
    JournalEntry,
    Observation,
)
from agent.core.reconnect import forgive
from agent.core.recovery.repair import (
    Case,
    Circumstances,
    Ending,
    Goal,
    RecoveryKind,
    RecoveryPolicy,
    Repair,
    begin_repair,
    join_repair,
    outlive_repair,
    wants_repair,
    with_repair,
)
from agent.core.recovery.steps import after_action, put_off_ending, step_repair
from agent.core.waiting import AWAY
from agent.engines.catalog import finds_records
from agent.errors import WaError
from agent.failpoint import failpoint
from agent.supervise.facts import Facts
from agent.supervise.passes.act import (
    CALL_TIMEOUT,
    REMOTE_TIMEOUT,
    Hands,
    call_worker,
    restart,
    start,
    to_its_end,
)
from agent.supervise.passes.findings import judge_keys
from agent.supervise.set_aside import set_aside
from agent.supervise.story import entry
from agent.supervise.turns.incidents import Incidents
from agent.supervise.turns.turns import Turns
from agent.vault.check import check_files

log = logging.getLogger(__name__)

STEP_TIMEOUT = 150.0
NO_EFFECT = "no_effect"
"""An engine's code for a step that its server answered and that changed nothing."""
BURST = 1.0
"""Seconds in which errors of keys are waited for: a burst tells all peers that fail."""
"""Less than the core's own limit for a step that does not report."""
BACKED_UP_THERE = "its backend's worker, at each removal"
"""A session that lives on a server leaves nothing here to copy."""

SaveRecord = Callable[[Facts, Sequence[JournalEntry]], Awaitable[None]]


class Keeper(Protocol):
    """What the ladder needs of the vault's snapshots."""

    async def has_good_snapshot(self, id: InstanceId) -> bool: ...
    async def back_up(self, facts: Facts, why: str) -> str:
        """Make a copy that was read back; its name."""

    async def must_have_room(self, facts: Facts) -> None:
        """VaultError where the newest good snapshot would not fit: asked while it still runs."""

    async def restore_newest(self, facts: Facts) -> str:
        """Put the newest good snapshot in place of the session; its worker does not run."""

    def may_roll_back(self, engine: str) -> bool: ...


@dataclass(slots=True)
class Ladder:
    """One repair at a time per instance; requests join it."""

    policy: Callable[[], RecoveryPolicy]
    crypto_policy: Callable[[], CryptoPolicy]
    hands: Hands
    keeper: Keeper
    incidents: Incidents
    save: SaveRecord
    hold: Callable[[Facts], str]
    """Why it must wait for its backend; "" when it need not."""
    turns: Turns
    statistics: RepairStatistics = field(default_factory=RepairStatistics)

    async def follow(
        self, facts: Facts, observation: Observation, verdict: HealthVerdict
    ) -> float | None:
        """At most one step. When to look again for the repair's sake; None: no repair waits."""
        now_wall = time.time()
        if not self._has_repair(facts, verdict, now_wall):
            return None
        assert facts.repair.last is not None
        case = await self._case(facts, observation, verdict, now_wall)
        before = facts.repair.last
        repair, action = step_repair(case, before)
        if (wait := self.turns.ask_for_step(facts, action.kind)) is not None:
            # Nothing has begun; only the weather it has seen meanwhile counts.
            facts.repair.last = replace(before, calm=repair.calm)
            return wait
        changed, facts.repair.last = repair != before, repair
        if action.kind is RecoveryKind.WAIT:
            if changed:
                await self._keep(facts)
            wait = max(action.not_before_wall - now_wall, 0.0)
            return boot_now() + wait if action.not_before_wall else boot_now() + 1.0
        if repair.over:
            return await self._end(facts, before, repair, action.reason)
        said = entry(
            facts, "repair", f"{action.kind}: {action.reason}", Category.RECOVERY, step=action.kind
        )
        await self._keep(facts, said)
        failpoint("repair_begun")
        await self._carry_out(facts, action.kind)
        return boot_now()

    def note_check(self, seconds: float) -> None:
        self.statistics = note_check(self.statistics, seconds)

    def request(self, facts: Facts, goal: Goal) -> None:
        """A requested repair joins the running one, or begins."""
        if facts.repair.last is not None and not facts.repair.last.over:
            facts.repair.last = join_repair(facts.repair.last, goal)
        else:
            assert facts.verdict is not None, "asked before the first look"
            facts.repair.last = begin_repair(facts.verdict, goal, time.time())
        facts.record = with_repair(facts.record, facts.repair.last)

    def _has_repair(self, facts: Facts, verdict: HealthVerdict, now_wall: float) -> bool:
        if facts.repair.last is not None and not facts.repair.last.over:
            return True
        if facts.repair.last is not None:
            before, facts.repair.last = (
                facts.repair.last,
                outlive_repair(facts.repair.last, verdict),
            )
            if facts.repair.last != before:
                facts.record = with_repair(facts.record, facts.repair.last)
        released = self.incidents.released_wall(facts)
        policy = self.policy()
        if (
            facts.folder.away_since is not None
            and boot_now() - facts.folder.away_since < policy.suspect_settle
        ):
            return False  # what was moved away comes back, and then nothing may stand in its place
        if not wants_repair(verdict, facts.repair.last, policy, now_wall, released_wall=released):
            return False
        facts.repair.last = begin_repair(verdict, Goal.HEAL, now_wall)
        return True

    async def _case(
        self, facts: Facts, observation: Observation, verdict: HealthVerdict, now_wall: float
    ) -> Case:
        good_snapshot = await self.keeper.has_good_snapshot(facts.id)
        # All else is asked after that wait: an incident may have been declared meanwhile.
        # What was judged while its backend was away says nothing of it, though it may be back.
        held = bool(self.hold(facts)) or observation.hold in AWAY
        around = Circumstances(
            well=self.incidents.well(facts) and not held,
            odd_one_out=self.incidents.odd_one_out(facts),
            can_log_out=bool(facts.instance.backend),
            canary=not (held or self.incidents.hold(facts)),
            good_snapshot=good_snapshot,
            may_roll_back=self.keeper.may_roll_back(facts.instance.engine),
            peers=self._peers(facts),
            finds_records=finds_records(facts.instance.engine),
        )
        return Case(observation, verdict, around, self.policy(), now_wall)

    async def _carry_out(self, facts: Facts, kind: RecoveryKind) -> None:
        begun, backup, problem, no_effect = boot_now(), "", "", False
        try:
            async with asyncio.timeout(STEP_TIMEOUT):
                made = await to_its_end(facts, self._do(facts, kind), kind)
                backup, problem = made or "", "interrupted" if made is None else ""
        except TimeoutError:
            problem = f"it took more than {STEP_TIMEOUT:.0f} s"
        except WaError as error:
            problem, no_effect = str(error), error.code == NO_EFFECT
        failpoint("repair_done")
        facts.action.refusal = problem
        if problem:
            self.turns.settled(facts)
        if facts.instance.backend and kind is not RecoveryKind.BACK_UP:
            facts.next_probe = facts.next_deep = 0.0
            if not problem:
                facts.begin_again(boot_now())
        seconds, ok = boot_now() - begun, not problem
        self.statistics = note_step(self.statistics, kind, ok, seconds)
        facts.counters.repair_steps[(kind.value, "done" if ok else "failed")] += 1
        facts.counters.repair_seconds += seconds
        if facts.repair.last is not None:
            facts.repair.last = after_action(
                facts.repair.last,
                kind,
                ok,
                self.policy(),
                time.time(),
                backup=backup,
                no_effect=no_effect,
            )
        if ok and kind in (RecoveryKind.RECONNECT, RecoveryKind.RESTART):
            # Old errors say nothing about a new session.
            facts.crypto = crypto_begins_anew(facts.crypto)
        sentence = f"{kind}: {'done' if ok else 'failed: ' + problem} in {seconds:.2f} s"
        said = entry(
            facts, "repaired", sentence, Category.RECOVERY, step=kind, ok=ok, backup=backup
        )
        await self._keep(facts, said)

    async def _do(self, facts: Facts, kind: RecoveryKind) -> str:
        match kind:
            case RecoveryKind.RECONNECT:
                await call_worker(facts, "disconnect")
                failpoint("repair_disconnected")
                await call_worker(facts, "connect")
            case RecoveryKind.RESTART:
                await self._start_anew(facts)
            case RecoveryKind.REGENERATE_KEYS:
                await self._regenerate(facts)
            case RecoveryKind.BACK_UP:
                if facts.instance.backend:
                    return BACKED_UP_THERE
                return await self.keeper.back_up(facts, "before a repair")
            case RecoveryKind.RESTORE:
                await self.keeper.must_have_room(facts)
                # First, so that a copy that is in place by the next life finds nothing against it.
                facts.record = forgive(facts.record)
                await self._stop(facts)
                await self.keeper.restore_newest(facts)
                await self._start_anew(facts)
            case RecoveryKind.LOGOUT_RESTART:
                facts.asked.logout = True
                await call_worker(facts, "logout")
                await self._clean_up(facts, "restart")
            case RecoveryKind.CLEANUP:
                await self._clean_up(facts)
            case _:
                raise AssertionError(f"no hand for {kind}")
        return ""

    async def _start_anew(self, facts: Facts) -> None:
        facts.counters.by_word["restarts"]["agent"] += 1
        # The host's burst limit is against crash loops: it counts no starts that we mean.
        await self.hands.host.reset_failed(facts.id)
        if facts.unit.runs:
            await restart(facts, self.hands)
        else:
            # A running worker's files are not checked: the finding before the step must not stay.
            if not facts.instance.backend:
                folder = self.hands.session_root / facts.id
                facts.folder.files = await asyncio.to_thread(
                    check_files, folder, facts.instance.engine
                )
            await start(facts, self.hands)

    async def _stop(self, facts: Facts) -> None:
        facts.record = replace(facts.record, stopped_run=facts.record.seen_run)
        await self.save(facts, [])
        await self.hands.host.stop(facts.id)
        facts.unit = await self.hands.host.status(facts.id)
        failpoint("repair_stopped")

    def _peers(self, facts: Facts) -> tuple[str, ...]:
        """Peers whose keys the step regenerates; all that fail if no milder step helps."""
        crypto = judge_keys(facts, self.crypto_policy(), boot_now())
        corrupted = crypto.signal is not None and crypto.signal.level is Health.CORRUPTED
        return crypto.failing if corrupted and facts.instance.backend else crypto.peers

    async def _regenerate(self, facts: Facts) -> None:
        policy = self.crypto_policy()
        await asyncio.sleep(BURST)
        peers = self._peers(facts)
        tries = 0
        while True:
            try:
                limit = REMOTE_TIMEOUT if facts.instance.backend else CALL_TIMEOUT
                await call_worker(facts, "regenerate_keys", {"peers": list(peers)}, timeout=limit)
                break
            except WaError as error:
                tries += 1
                wait = crypto_retry_delay(tries, policy)
                if wait is None or error.code in ("not_supported", "nothing_to_remove"):
                    facts.counters.by_word["key_regenerations"]["failed"] += 1
                    raise
                await asyncio.sleep(wait)
        facts.counters.by_word["key_regenerations"]["done"] += 1
        # Without a peer the damaged records were taken out: whom the errors did not name.
        facts.crypto = note_regenerated(facts.crypto, peers or ("",), boot_now())

    async def _clean_up(self, facts: Facts, remote_call: str = "renew") -> None:
        """Retire the session, reset the record, begin afresh."""
        if facts.instance.backend:
            await self._clean_up_there(facts, remote_call)
            return
        await self._stop(facts)
        facts.record = replace(forgive(facts.record), paired=False, account="")
        facts.saved.identity_behind = True
        await self.save(facts, [])
        failpoint("cleanup_reset")
        await asyncio.to_thread(set_aside, self.hands.session_root, facts, "cleaned up")
        facts.counters.by_word["cleanups"][
            facts.repair.last.goal.value if facts.repair.last else Goal.HEAL.value
        ] += 1
        await self._start_anew(facts)

    async def _clean_up_there(self, facts: Facts, do: str) -> None:
        """Its server gives the pairing up and begins afresh; only then ours is forgotten."""
        await call_worker(facts, do, timeout=REMOTE_TIMEOUT)
        failpoint("cleanup_reset")
        facts.record = replace(forgive(facts.record), paired=False, account="")
        facts.saved.identity_behind = True
        await self.save(facts, [])
        facts.counters.by_word["cleanups"][
            facts.repair.last.goal.value if facts.repair.last else Goal.HEAL.value
        ] += 1

    async def _end(
        self, facts: Facts, before: Repair, repair: Repair, sentence: str
    ) -> float | None:
        """A time: what its end asks for could not be done, and is due again then."""
        if repair.ending is Ending.NEEDS_SCAN:
            try:
                async with asyncio.timeout(STEP_TIMEOUT):
                    sentence += await self._begin_anew(facts)
            except (WaError, TimeoutError) as error:
                return await self._put_off(facts, before, error)
        self.statistics = note_repair(self.statistics, repair)
        facts.durations.note("repair", repair.ended_wall - repair.started_wall)
        said = entry(
            facts,
            "repair_over",
            sentence,
            Category.RECOVERY,
            ending=repair.ending,
            seconds=round(repair.ended_wall - repair.started_wall, 1),
        )
        await self._keep(facts, said)
        if facts.repair.last is repair:  # else somebody has asked for another meanwhile
            facts.repair_ended()
        return None

    async def _begin_anew(self, facts: Facts) -> str:
        """A suspect was tried in vain: its files are evidence now, and it may be paired anew.

        Its pairing is given up in the record first: an end that is cut short is ended by the
        next life, and never begins on what it had.
        """
        await self._stop(facts)
        facts.record = replace(forgive(facts.record), paired=False, account="")
        facts.saved.identity_behind = True
        await self.save(facts, [])
        failpoint("needs_scan_reset")
        if facts.instance.backend:
            return ""
        kept = await asyncio.to_thread(set_aside, self.hands.session_root, facts, "it needs a scan")
        return f"; its files are in the trash as {kept}"

    async def _put_off(self, facts: Facts, before: Repair, error: Exception) -> float:
        facts.repair.last = put_off_ending(before, self.policy(), time.time())
        problem = str(error) or "it took too long"
        sentence = f"needs scan: failed: {problem}"
        await self._keep(facts, entry(facts, "repaired", sentence, Category.RECOVERY, ok=False))
        return boot_now() + max(facts.repair.last.not_before_wall - time.time(), 0.0)

    async def _keep(self, facts: Facts, *said: JournalEntry) -> None:
        facts.record = with_repair(facts.record, facts.repair.last)
        for one in said:
            log.info("%s", one.sentence, extra=_about(one))
        await self.save(facts, said)


def _about(one: JournalEntry) -> dict[str, str]:
    return {"wa_category": one.category, "wa_instance": one.instance or ""}
