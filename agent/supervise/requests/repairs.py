"""The public face of repairing: check, recover, clean up, ensure healthy, set up, incidents.

A request is written down and joins the repair that runs; passes carry it out, we wait.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace

from agent.clock import boot_now
from agent.core.breaker import Breaker, with_breaker
from agent.core.figures.repair_statistics import RepairStatistics
from agent.core.incidents.incident import Incident
from agent.core.model import (
    Category,
    ConnectionStatus,
    HealthVerdict,
    Instance,
    InstanceId,
    JournalEntry,
)
from agent.core.reasons import reason_of
from agent.core.reconnect import forgive
from agent.core.recovery.repair import Ending, Goal
from agent.core.waiting import AWAY
from agent.engines.base import Qr
from agent.errors import LinkError, NotFound, Refused, TryLater
from agent.host.base import Host
from agent.log import bound
from agent.supervise.facts import Facts
from agent.supervise.passes.picture import desired_of
from agent.supervise.passes.repair import Ladder
from agent.supervise.registry import Registry
from agent.supervise.requests.calls import Asking
from agent.supervise.requests.checks import Checking
from agent.supervise.requests.no_code import refuse_silent, waits_in_vain
from agent.supervise.requests.passkey import must_confirm_passkey
from agent.supervise.story import entry
from agent.supervise.turns.incidents import Incidents
from agent.supervise.turns.memory import MEMORY_FULL

REPAIR_TIMEOUT = 300.0
SETUP_TIMEOUT = 120.0
AWAY_PATIENCE = 5.0
"""Seconds for which a request waits for a server that is away: longer than a blink."""
GOES_ON = "goes_on"
"""The ending of a repair that takes longer than who asked for it waits."""
REFUSALS = 4
"""Starts in a row that failed, after which a set-up answers with what they met."""
_POLL = 0.1


@dataclass(frozen=True, slots=True)
class RepairResult:
    """How a requested repair ended."""

    healthy: bool
    cleaned: bool
    recovered: bool
    ending: str
    sentence: str = ""
    """What still is wrong; "" where it is well."""


@dataclass(frozen=True, slots=True)
class SetUp:
    """An instance that is ready to be scanned, or that is connected."""

    id: InstanceId
    created: bool
    result: RepairResult
    qr: Qr | None
    """None: it is connected."""


class Repairs:
    """Everything that may be asked of repairing. Unknown ids raise NotFound."""

    def __init__(
        self,
        *,
        registry: Registry,
        host: Host,
        ladder: Ladder,
        incidents: Incidents,
        checking: Checking,
        asking: Asking,
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
        self._asking = asking
        self._wake = wake
        self._stopping = asyncio.Event()
        self._creating: dict[InstanceId, asyncio.Lock] = {}

    def stop(self) -> None:
        """Callers that wait for a repair get "ask again", so that they delay no stop."""
        self._stopping.set()

    # one instance

    async def check_instance_health(self, id: InstanceId) -> HealthVerdict:
        """Measure now and judge."""
        return (await self._checking.check_now([id]))[id]

    async def try_recover(self, id: InstanceId) -> RepairResult:
        """One round of all that keeps the pairing."""
        return await self._repair(id, Goal.RECOVER)

    async def cleanup_corrupted(
        self, id: InstanceId, *, confirmed: bool = False, passkey: str = ""
    ) -> RepairResult:
        """Begin afresh: the session is retired (it can be restored) and a new QR offered."""
        facts = self._registry.get(id)
        if not confirmed and is_paired(facts):
            raise Refused(
                f"cannot clean up {id} without a confirmation: it would end a pairing",
                field="confirm",
                code="would_unpair",
            )
        must_confirm_passkey(facts, "clean up", passkey)
        return await self._repair(id, Goal.CLEANUP)

    async def ensure_healthy(
        self, id: InstanceId, in_vain: Callable[[Facts], bool] | None = None
    ) -> RepairResult:
        """Check, recover, and clean up if nothing milder helped: it ends connected or with a QR.

        Answered within the limit, and as soon as waiting is `in_vain`; a repair that takes
        longer goes on (ending "goes_on").
        """
        deadline = time.monotonic() + self._limit
        facts = self._registry.get(id)
        self._must_be_wanted(facts)
        if not _repair_runs(facts) and _is_well(await self._settled_verdict(facts, deadline)):
            return RepairResult(healthy=True, cleaned=False, recovered=False, ending="")
        await self._until_there(facts)
        return await self._repair(id, Goal.WORKING_QR, deadline, in_vain)

    async def set_up(
        self,
        wanted: Instance,
        create: Callable[[Instance], Awaitable[object]],
        enable: Callable[[InstanceId], Awaitable[object]],
    ) -> SetUp:
        """What exists is made healthy first, what is missing created; then a QR or CONNECTED."""
        result = RepairResult(healthy=True, cleaned=False, recovered=False, ending="")
        asked_at = boot_now()

        def in_vain(facts: Facts) -> bool:
            return waits_in_vain(facts, self._incidents.fellows(facts), asked_at)

        # Who asks for the same new one meanwhile joins: it is created once.
        lock = self._creating.setdefault(wanted.id, asyncio.Lock())
        async with lock:
            facts = self._registry.facts.get(wanted.id)
            if facts is None:
                await create(wanted)
        if facts is None:
            self._creating.pop(wanted.id, None)
        elif wanted.engine and facts.instance.engine != wanted.engine:
            raise Refused(
                f"cannot set up {wanted.id} with {wanted.engine}: it exists and its engine is"
                f" {facts.instance.engine}",
                field="engine",
                code="other_engine",
            )
        else:
            if not desired_of(facts, self._host).should_run:
                await enable(wanted.id)
            result = await self.ensure_healthy(wanted.id, in_vain)
            _must_have_helped(facts, result)
        qr = await self._code_or_connected(wanted.id, in_vain)
        return SetUp(wanted.id, facts is None, result, qr)

    async def force_reconnection(self, id: InstanceId) -> None:
        """Try now, whatever the count, the delay and the circuit say."""
        facts = self._registry.get(id)
        self._must_be_wanted(facts)
        reason = reason_of(facts.record.reason) if facts.record.reason else None
        if reason is not None and reason.unpairs:
            raise Refused(
                f"cannot reconnect {id}: {reason.title}. {reason.advice}", code="never_reconnects"
            )
        connected = facts.record.status is ConnectionStatus.CONNECTED
        # Its worker or its server reconnects a connected session.
        again = facts.unit.run if connected and facts.unit.runs else ""
        facts.record = replace(forgive(facts.record), restart_of=again or facts.record.restart_of)
        facts.asked.try_at_once = facts.asked.past_looks = True
        said = entry(facts, "operator", "an operator asked to connect now", Category.RECONNECT)
        await self._intend(facts, said)

    async def reset_circuit_breaker(self, id: InstanceId) -> None:
        facts = self._registry.get(id)
        facts.record = with_breaker(facts.record, Breaker())
        said = entry(facts, "operator", "an operator closed the circuit", Category.RECONNECT)
        await self._intend(facts, said)

    # all together

    def statistics(self) -> RepairStatistics:
        return self._ladder.statistics

    def incidents(self) -> Collection[Incident]:
        return tuple(self._incidents.active.values())

    def release_incident(self, group: str) -> None:
        if group not in self._incidents.active:
            raise NotFound(f"cannot release an incident of {group}: there is none")
        self._incidents.release(group, "an operator released it")

    # inside

    async def _repair(
        self,
        id: InstanceId,
        goal: Goal,
        deadline: float | None = None,
        in_vain: Callable[[Facts], bool] | None = None,
    ) -> RepairResult:
        deadline = deadline or time.monotonic() + self._limit
        facts = self._registry.get(id)
        self._must_be_wanted(facts)
        joins = _repair_runs(facts)
        if not joins and facts.verdict is None:
            await self.check_instance_health(id)
        asked_at = boot_now()
        self._ladder.request(facts, goal)
        over = facts.repair.waiters = facts.repair.waiters or asyncio.Event()
        word = "joins the repair that runs" if joins else "begins a repair"
        sentence = f"an operator asked for a repair ({goal.replace('_', ' ')}): it {word}"
        await self._intend(facts, entry(facts, "operator", sentence, Category.RECOVERY))
        in_vain = in_vain or (lambda facts: waits_in_vain(facts, (), asked_at))
        while not await self._wait(over, _POLL) and time.monotonic() < deadline:
            if in_vain(facts):
                break
        if facts.gone:
            raise NotFound(f"cannot repair {id}: it was deleted meanwhile", field="id")
        last = facts.repair.last
        assert last is not None
        ending = last.ending if over.is_set() else GOES_ON
        sentence = "" if last.answer["healthy"] else facts.action.refusal or facts.sentence
        return RepairResult(**last.answer, ending=ending, sentence=sentence)

    async def _wait(self, event: asyncio.Event, limit: float) -> bool:
        """False: its time is over. TryLater when the agent stops meanwhile."""
        waits = [asyncio.create_task(one.wait()) for one in (event, self._stopping)]
        try:
            await asyncio.wait(waits, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
        if self._stopping.is_set() and not event.is_set():
            raise TryLater("the agent stops; ask again after its start", code="stopping")
        return event.is_set()

    async def _settled_verdict(self, facts: Facts, deadline: float) -> HealthVerdict:
        """Who is on its way in time is let come: its own deadlines say when that is over."""
        verdict = await self.check_instance_health(facts.id)
        while verdict.reason in ("starting", "stopping") and time.monotonic() < deadline:
            await self._wait(asyncio.Event(), _POLL)
            verdict = self._registry.get(facts.id).verdict or verdict
            if _repair_runs(facts):
                break
        return verdict

    async def _code_or_connected(
        self, id: InstanceId, in_vain: Callable[[Facts], bool]
    ) -> Qr | None:
        """Wait for a code to scan; None once it is connected."""
        deadline = time.monotonic() + SETUP_TIMEOUT
        while time.monotonic() < deadline:
            facts = self._registry.get(id)
            if facts.record.status is ConnectionStatus.CONNECTED:
                return None
            if facts.hold == MEMORY_FULL:
                raise TryLater(f"cannot start {id}: {facts.sentence}", code=MEMORY_FULL)
            await self._until_there(facts)
            if facts.action.failures >= REFUSALS:
                raise TryLater(f"cannot start {id}: {facts.action.refusal}", code="server_refused")
            if in_vain(facts):
                refuse_silent(facts)
            if facts.verdict is not None and reason_of(facts.verdict.reason).hopeless:
                _refuse_hopeless(id, facts.verdict)
            if facts.record.status is ConnectionStatus.QR_REQUIRED:
                try:
                    if (found := await self._asking.qr(id)) is not None and found.expires_in > 0:
                        return found
                except (LinkError, Refused):
                    pass  # its worker is being replaced; the next look finds the new one
            await self._wait(asyncio.Event(), _POLL)
        because = f": {why}" if (why := facts.action.refusal or facts.sentence) else ""
        raise TryLater(f"{id} shows neither a code nor a connection yet{because}", code="no_qr")

    async def _until_there(self, facts: Facts) -> None:
        """While its server is away the caller gets an answer soon: no wait would help."""
        deadline = time.monotonic() + AWAY_PATIENCE
        while facts.hold in AWAY:
            if time.monotonic() > deadline:
                raise TryLater(f"cannot reach {facts.id}: {facts.sentence}", code=facts.hold)
            await self._wait(asyncio.Event(), _POLL)

    def _must_be_wanted(self, facts: Facts) -> None:
        if not desired_of(facts, self._host).should_run:
            raise Refused(
                f"cannot repair {facts.id}: it is disabled or stopped; enable or start it first",
                code="not_wanted",
            )

    async def _intend(self, facts: Facts, said: JournalEntry) -> None:
        bound(said.category, facts.id).info("%s", said.sentence)
        await self._registry.save(facts, [said])
        self._wake(facts.id)


def _repair_runs(facts: Facts) -> bool:
    return facts.repair.last is not None and not facts.repair.last.over


def _is_well(verdict: HealthVerdict) -> bool:
    return verdict.healthy or verdict.reason == "waiting_for_scan"


def is_paired(facts: Facts) -> bool:
    claimed = facts.run.claim is not None and facts.run.claim.claim.paired
    unpaired = bool(facts.record.reason) and reason_of(facts.record.reason).unpairs
    return (facts.record.paired or claimed) and not unpaired


def _must_have_helped(facts: Facts, result: RepairResult) -> None:
    if result.ending == Ending.NEEDS_PERSON and facts.verdict is not None:
        _refuse_hopeless(facts.id, facts.verdict)
    if result.ending in (Ending.GAVE_UP, GOES_ON):
        refuse_silent(facts)
    if result.ending == Ending.GAVE_UP:
        raise TryLater(f"cannot set up {facts.id}: {result.sentence}", code="no_qr")
    if result.ending == GOES_ON:
        still = f"the repair of {facts.id} still goes on: {result.sentence}"
        raise TryLater(still, code="repair_goes_on")


def _refuse_hopeless(id: InstanceId, verdict: HealthVerdict) -> None:
    if verdict.reason != "qr_idle":  # asking for its code wakes that one
        raise Refused(f"cannot show a code for {id}: {verdict.sentence}", code=verdict.reason)
