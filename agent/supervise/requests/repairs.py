"""The public face of repairing: check, recover, clean up, ensure healthy, incidents. A request
joins the repair that runs; passes carry it out, the request waits."""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from agent.clock import boot_now
from agent.core.breaker import Breaker, with_breaker
from agent.core.figures.repair_statistics import RepairStatistics
from agent.core.incidents import Incident
from agent.core.model import (
    Category,
    ConnectionStatus,
    HealthVerdict,
    InstanceId,
    JournalEntry,
)
from agent.core.reasons import reason_of
from agent.core.reconnect import forgive
from agent.core.recovery.proof import Consent
from agent.core.recovery.repair import Ending, Goal
from agent.core.waiting import AWAY
from agent.errors import NotFound, Refused, TryLater, WaError
from agent.host.base import Host
from agent.log import bound
from agent.supervise.facts import Facts
from agent.supervise.incidents import Incidents
from agent.supervise.passes.repair import Ladder
from agent.supervise.passes.run import Passes
from agent.supervise.registry import Registry
from agent.supervise.requests.confirming import must_be_confirmed
from agent.supervise.requests.refusals import (
    is_over_for,
    refuse_away,
    refuse_failed,
    refuse_kept,
    refuse_silent,
    refuse_unwanted,
    waits_in_vain,
)
from agent.supervise.story import entry
from agent.supervise.views import NOT_LOOKED_YET

T = TypeVar("T")
GRACE = 0.2
"""Seconds for work that ends at the deadline by itself to say how far it came."""

_working: set[asyncio.Task[Any]] = set()
"""The loop itself keeps no task that nothing waits for."""


async def in_time(work: Coroutine[Any, Any, T], deadline: float) -> T | None:
    """None: it goes on without its caller. `deadline` is of time.monotonic()."""
    task = asyncio.create_task(work, name="asked for")
    _working.add(task)
    task.add_done_callback(_over)
    await asyncio.wait({task}, timeout=max(deadline - time.monotonic(), 0.0) + GRACE)
    return task.result() if task.done() else None


def _over(task: asyncio.Task[Any]) -> None:
    _working.discard(task)
    if not task.cancelled():
        task.exception()  # read here: its caller may have had its answer before


class Checking:
    def __init__(
        self,
        registry: Registry,
        passes: Passes,
        wake: Callable[[InstanceId], None],
        *,
        at_once: int,
    ) -> None:
        self._registry = registry
        self._passes = passes
        self._wake = wake
        self._places = asyncio.Semaphore(at_once)

    async def check_now(
        self, ids: Collection[InstanceId] | None = None
    ) -> Mapping[InstanceId, HealthVerdict]:
        chosen = list(self._registry.facts) if ids is None else list(ids)
        all_facts = [self._registry.get(id) for id in chosen]
        await asyncio.gather(*(self._check(facts) for facts in all_facts))
        return {facts.id: facts.verdict or NOT_LOOKED_YET for facts in all_facts}

    async def _check(self, facts: Facts) -> None:
        facts.next_probe = 0.0
        async with self._places:
            await self._passes.run(facts)
        self._wake(facts.id)  # the loop knows its next deadline


REPAIR_TIMEOUT = 300.0
AWAY_PATIENCE = 5.0
"""Seconds for which a request waits for a server that is away: longer than a blink."""
GOES_ON = "goes_on"
"""The ending of a repair that takes longer than its caller waits."""
POLL = 0.1
_NOTHING_DONE = {"healthy": False, "cleaned": False, "recovered": False}
_ON_ITS_WAY = ("starting", "stopping")


@dataclass(frozen=True, slots=True)
class RepairResult:
    healthy: bool
    cleaned: bool
    recovered: bool
    ending: str
    sentence: str = ""
    """What still is wrong; "" where it is well."""


class Repairs:
    """Unknown ids raise NotFound."""

    def __init__(
        self,
        *,
        registry: Registry,
        host: Host,
        ladder: Ladder,
        incidents: Incidents,
        checking: Checking,
        wake: Callable[[InstanceId], None],
        limit: float = REPAIR_TIMEOUT,
    ) -> None:
        """`limit`: seconds until a request for a repair is answered, whatever the repair does."""
        self._limit = limit
        self._registry = registry
        self._host = host
        self._ladder = ladder
        self._incidents = incidents
        self._checking = checking
        self._wake = wake
        self._stopping = False

    def stop(self) -> None:
        """Answer waiting callers with TryLater, so that they delay no stop."""
        self._stopping = True

    async def check_instance_health(self, id: InstanceId) -> HealthVerdict:
        return (await self._checking.check_now([id]))[id]

    async def try_recover(self, id: InstanceId, *, wait: float | None = None) -> RepairResult:
        """One round of all steps that keep the pairing."""
        facts, deadline = self._registry.get(id), self._deadline(wait)
        refuse_unwanted(facts, self._host)
        return await self._until(deadline, facts, self._recover(facts, deadline))

    async def cleanup_corrupted(
        self,
        id: InstanceId,
        *,
        wait: float | None = None,
        confirmed: bool = False,
        passkey: str = "",
    ) -> RepairResult:
        """Retire the session (the trash keeps it) and offer a new QR."""
        facts, deadline = self._registry.get(id), self._deadline(wait)
        word = must_be_confirmed(facts, "clean up", confirmed=confirmed, passkey=passkey)
        refuse_unwanted(facts, self._host)
        repair = self._repair(facts, Goal.CLEANUP, deadline, consent=word)
        return await self._until(deadline, facts, repair)

    async def ensure_healthy(
        self,
        id: InstanceId,
        in_vain: Callable[[Facts], bool] | None = None,
        *,
        wait: float | None = None,
        confirmed: bool = False,
        passkey: str = "",
    ) -> RepairResult:
        """Check, recover, and clean up if nothing milder helped: it ends connected or with a QR.
        TryLater where it stays unwell and its pairing may not end without a person's word, or its
        server shows no code.

        Answered as soon as `in_vain`, too.
        """
        facts, deadline = self._registry.get(id), self._deadline(wait)
        refuse_unwanted(facts, self._host)
        word = Consent.NONE
        if confirmed:
            word = must_be_confirmed(facts, "renew", confirmed=True, passkey=passkey)
        heal = self._heal(facts, deadline, in_vain, word)
        return await self._until(deadline, facts, heal)

    async def force_reconnection(self, id: InstanceId) -> None:
        """Try now, whatever the attempts, the delay and the circuit say."""
        facts = self._registry.get(id)
        refuse_unwanted(facts, self._host)
        reason = reason_of(facts.record.reason) if facts.record.reason else None
        if reason is not None and reason.unpairs:
            raise Refused(f"cannot reconnect {id}: {reason.in_full(id)}", code="never_reconnects")
        connected = facts.record.status is ConnectionStatus.CONNECTED
        # Its worker or its server reconnects a connected session.
        again = facts.unit.run if connected and facts.unit.runs else ""
        facts.record = replace(forgive(facts.record), restart_of=again or facts.record.restart_of)
        facts.asked.start = facts.asked.try_at_once = facts.asked.past_looks = True
        said = entry(facts, "operator", "an operator asked to connect now", Category.RECONNECT)
        await self._intend(facts, said)

    async def reset_circuit_breaker(self, id: InstanceId) -> None:
        facts = self._registry.get(id)
        facts.record = with_breaker(facts.record, Breaker())
        said = entry(facts, "operator", "an operator closed the circuit", Category.RECONNECT)
        await self._intend(facts, said)

    def statistics(self) -> RepairStatistics:
        return self._ladder.statistics

    def incidents(self) -> Collection[Incident]:
        return tuple(self._incidents.active.values())

    def release_incident(self, group: str) -> None:
        if group not in self._incidents.active:
            raise NotFound(f"cannot release an incident of {group}: there is none")
        self._incidents.release(group, "an operator released it")

    def _deadline(self, wait: float | None) -> float:
        return time.monotonic() + (self._limit if wait is None else min(wait, self._limit))

    async def _until(
        self, deadline: float, facts: Facts, work: Coroutine[Any, Any, RepairResult]
    ) -> RepairResult:
        """The answer to every request for a repair; at its deadline ending "goes_on"."""
        if (answer := await in_time(work, deadline)) is not None:
            return answer
        refuse_away(facts)
        last = facts.repair.last
        sentence = facts.action.refusal or facts.sentence
        so_far = last.answer if last is not None and not last.over else _NOTHING_DONE
        return RepairResult(**so_far, ending=GOES_ON, sentence=sentence)

    async def _recover(self, facts: Facts, deadline: float) -> RepairResult:
        """No step that keeps a pairing helps where a person has to link the session."""
        found, verdict = await self._repair(facts, Goal.RECOVER, deadline), facts.verdict
        if found.ending == GOES_ON or verdict is None or verdict.healthy or not _is_well(verdict):
            return found
        told = f"{facts.sentence}: wa-agent qr {facts.id} --watch"
        scan = Ending.NEEDS_SCAN
        return replace(found, healthy=False, recovered=False, ending=scan, sentence=told)

    async def _heal(
        self,
        facts: Facts,
        deadline: float,
        in_vain: Callable[[Facts], bool] | None,
        consent: Consent,
    ) -> RepairResult:
        if not _repair_runs(facts):
            verdict = await self._settled_verdict(facts, deadline)
            if _is_well(verdict):
                return RepairResult(healthy=True, cleaned=False, recovered=False, ending="")
            if _is_on_its_way(facts) and not _repair_runs(facts):
                # It starts in its time: a repair would only begin the start again.
                return RepairResult(False, False, False, GOES_ON, verdict.sentence)
        return await self._repair(facts, Goal.WORKING_QR, deadline, in_vain, consent)

    async def _repair(
        self,
        facts: Facts,
        goal: Goal,
        deadline: float,
        in_vain: Callable[[Facts], bool] | None = None,
        consent: Consent = Consent.NONE,
    ) -> RepairResult:
        joins = _repair_runs(facts)
        if not joins and facts.verdict is None:
            await self.check_instance_health(facts.id)
        await self.until_there(facts)
        asked_at = boot_now()
        before = facts.repair.last
        self._ladder.request(facts, goal, consent)
        over = facts.repair.waiters = facts.repair.waiters or asyncio.Event()
        word = "joins the repair that runs" if joins else "begins a repair"
        sentence = f"an operator asked for a repair ({goal.replace('_', ' ')}): it {word}"
        try:
            await self._intend(facts, entry(facts, "operator", sentence, Category.RECOVERY))
        except WaError:
            self._ladder.take_back(facts, before)
            raise
        in_vain = in_vain or (lambda facts: waits_in_vain(facts, (), asked_at))
        await self.until(
            deadline, lambda: over.is_set() or in_vain(facts) or is_over_for(facts, goal)
        )
        if facts.gone:
            raise NotFound(f"cannot repair {facts.id}: it was deleted meanwhile", field="id")
        last = facts.repair.last
        assert last is not None
        if not over.is_set():
            refuse_away(facts)
        ending = last.ending if over.is_set() else GOES_ON
        if goal is Goal.WORKING_QR and ending in (Ending.GAVE_UP, GOES_ON):
            refuse_kept(facts)
            refuse_silent(facts)
        if goal is Goal.CLEANUP:
            refuse_failed(facts, ending)
        answer = last.answer
        if ending is Ending.NO_STEP and facts.verdict is not None:
            answer["healthy"] = _is_well(facts.verdict)
        sentence = "" if answer["healthy"] else facts.action.refusal or facts.sentence
        return RepairResult(**answer, ending=ending, sentence=sentence)

    async def until(self, deadline: float, found: Callable[[], object]) -> None:
        """Return once it is found, or the time is over."""
        while not found() and time.monotonic() < deadline:
            await self.pause()

    async def pause(self) -> None:
        """Between two looks. TryLater when the agent stops."""
        if self._stopping:
            raise TryLater("the agent stops; ask again after its start", code="stopping")
        await asyncio.sleep(POLL)

    async def _settled_verdict(self, facts: Facts, deadline: float) -> HealthVerdict:
        """The verdict after a start or stop has ended: its deadlines say when it is late."""
        verdict = await self.check_instance_health(facts.id)
        await self.until(deadline, lambda: _repair_runs(facts) or not _is_on_its_way(facts))
        return facts.verdict or verdict

    async def until_there(self, facts: Facts) -> None:
        """TryLater once its server has stayed away for a while: no wait would help."""
        patience = time.monotonic() + AWAY_PATIENCE
        await self.until(patience, lambda: facts.wait.reason not in AWAY)
        refuse_away(facts)

    async def _intend(self, facts: Facts, said: JournalEntry) -> None:
        bound(said.category, facts.id).info("%s", said.sentence)
        with self._registry.order(facts):
            await self._registry.save(facts, [said])
        self._wake(facts.id)


def _repair_runs(facts: Facts) -> bool:
    return facts.repair.last is not None and not facts.repair.last.over


def _is_on_its_way(facts: Facts) -> bool:
    return facts.verdict is not None and facts.verdict.reason in _ON_ITS_WAY


def _is_well(verdict: HealthVerdict) -> bool:
    return verdict.healthy or verdict.reason == "waiting_for_scan"
