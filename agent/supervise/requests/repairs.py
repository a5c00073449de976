"""The public face of repairing: check, recover, clean up, ensure healthy, incidents. A request
joins the repair that runs; passes carry it out, the request waits."""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, replace
from typing import Any

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
from agent.supervise.passes.repair import Ladder
from agent.supervise.registry import Registry
from agent.supervise.requests.checks import Checking
from agent.supervise.requests.confirming import must_be_confirmed
from agent.supervise.requests.in_time import in_time
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
from agent.supervise.turns.incidents import Incidents

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
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Answer waiting callers with TryLater, so that they delay no stop."""
        self._stopping.set()

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
            if verdict.reason in _ON_ITS_WAY and not _repair_runs(facts):
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
        while not await self.wait(over, POLL) and time.monotonic() < deadline:
            if in_vain(facts) or is_over_for(facts, goal):
                break
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

    async def wait(self, event: asyncio.Event, limit: float) -> bool:
        """False: the time is over. TryLater when the agent stops meanwhile."""
        waits = [asyncio.create_task(awaited.wait()) for awaited in (event, self._stopping)]
        try:
            await asyncio.wait(waits, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for awaited in waits:
                awaited.cancel()
        if self._stopping.is_set() and not event.is_set():
            raise TryLater("the agent stops; ask again after its start", code="stopping")
        return event.is_set()

    async def _settled_verdict(self, facts: Facts, deadline: float) -> HealthVerdict:
        """The verdict after a start or stop has ended: its deadlines say when it is late."""
        verdict = await self.check_instance_health(facts.id)
        while verdict.reason in _ON_ITS_WAY and time.monotonic() < deadline:
            await self.wait(asyncio.Event(), POLL)
            verdict = self._registry.get(facts.id).verdict or verdict
            if _repair_runs(facts):
                break
        return verdict

    async def until_there(self, facts: Facts) -> None:
        """TryLater once its server has stayed away for a while: no wait would help."""
        deadline = time.monotonic() + AWAY_PATIENCE
        while facts.wait_reason in AWAY:
            if time.monotonic() > deadline:
                refuse_away(facts)
            await self.wait(asyncio.Event(), POLL)

    async def _intend(self, facts: Facts, said: JournalEntry) -> None:
        bound(said.category, facts.id).info("%s", said.sentence)
        with self._registry.order(facts):
            await self._registry.save(facts, [said])
        self._wake(facts.id)


def _repair_runs(facts: Facts) -> bool:
    return facts.repair.last is not None and not facts.repair.last.over


def _is_well(verdict: HealthVerdict) -> bool:
    return verdict.healthy or verdict.reason == "waiting_for_scan"
