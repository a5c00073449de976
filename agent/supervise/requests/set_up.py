"""Set-up: make an instance, or make it healthy, until it shows a code to scan or is connected."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from agent.core.model import ConnectionStatus, HealthVerdict, Instance, InstanceId
from agent.core.reasons import reason_of
from agent.core.recovery.ladder import needs_repair
from agent.core.recovery.repair import Ending, Goal
from agent.engines.base import Qr
from agent.errors import LinkError, Refused, TryLater
from agent.supervise.facts import Facts
from agent.supervise.gate import MEMORY_FULL
from agent.supervise.registry import Registry
from agent.supervise.requests.calls import Calls
from agent.supervise.requests.repairs import GOES_ON, RepairResult, Repairs

WELL = RepairResult(healthy=True, cleaned=False, recovered=False, ending="")
REFUSALS = 4
"""After so many failed starts in a row a set-up answers with their error."""


@dataclass(frozen=True, slots=True)
class SetUp:
    id: InstanceId
    created: bool
    result: RepairResult
    qr: Qr | None
    """None: it is connected, or `goes_on`."""
    goes_on: bool = False
    """The time to wait is over, and the agent goes on."""


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class SettingUp:
    repairs: Repairs
    registry: Registry
    asking: Calls
    create: Callable[[Instance], Awaitable[object]]
    enable: Callable[[InstanceId], Awaitable[object]]
    _creating: dict[InstanceId, asyncio.Lock] = field(init=False, default_factory=dict)

    async def set_up(
        self, wanted: Instance, *, wait: float, confirmed: bool = False, passkey: str = ""
    ) -> SetUp:
        """Make an existing instance healthy, or create it; then wait for a QR or CONNECTED. `wait`:
        seconds after which it is answered, whatever still goes on."""
        deadline = time.monotonic() + wait

        async def heal() -> RepairResult:
            left = max(deadline - time.monotonic(), 0.0)
            return await self.repairs.until(
                Goal.WORKING_QR, wanted.id, wait=left, confirmed=confirmed, passkey=passkey
            )

        # A second request for the same new instance joins the first: it is created once.
        lock = self._creating.setdefault(wanted.id, asyncio.Lock())
        async with lock:
            facts = self.registry.facts.get(wanted.id)
            if facts is None:
                await self.create(wanted)
        if facts is None:
            self._creating.pop(wanted.id, None)
        elif wanted.engine and facts.instance.engine != wanted.engine:
            raise Refused(
                f"cannot set up {wanted.id} with {wanted.engine}: it exists and its engine is"
                f" {facts.instance.engine}",
                field="engine",
                code="other_engine",
            )
        elif not facts.desired.should_run:
            await self.enable(wanted.id)
        begun = SetUp(wanted.id, facts is None, WELL, qr=None)
        limit = asyncio.timeout(max(deadline - time.monotonic(), 0.0))
        try:
            async with limit:
                if facts is not None:
                    begun = replace(begun, result=await heal())
                    if not _has_helped(facts, begun.result):
                        return replace(begun, goes_on=True)
                return await self._code_or_connected(begun, heal)
        except TimeoutError:
            if not limit.expired():
                raise
            facts = self.registry.get(begun.id)
            sentence = facts.action.refusal or facts.sentence
            result = RepairResult(False, False, False, GOES_ON, sentence)
            return replace(begun, result=result, goes_on=True)

    async def _code_or_connected(
        self, begun: SetUp, heal: Callable[[], Awaitable[RepairResult]]
    ) -> SetUp:
        """Wait for a code to scan, or until it is connected. What was there before this agent made
        an instance of it may hang: it is healed as an instance of long ago."""
        id = begun.id
        while True:
            facts = self.registry.get(id)
            if facts.record.status is ConnectionStatus.CONNECTED:
                return begun
            if facts.wait.reason == MEMORY_FULL:
                raise TryLater(f"cannot start {id}: {facts.sentence}", code=MEMORY_FULL)
            await self.repairs.until_there(facts)
            if facts.action.failures >= REFUSALS:
                raise TryLater(f"cannot start {id}: {facts.action.refusal}", code="server_refused")
            if reason_of(facts.verdict.reason).hopeless:
                _refuse_hopeless(id, facts.verdict)
            if begun.result is WELL and needs_repair(facts.verdict):
                begun = replace(begun, result=await heal())
                if not _has_helped(facts, begun.result):
                    return replace(begun, goes_on=True)
            if facts.record.status is ConnectionStatus.QR_REQUIRED:
                try:
                    if (shown := await self.asking.qr(id)) is not None and shown.expires_in > 0:
                        return replace(begun, qr=shown)
                except (LinkError, Refused):
                    pass  # its worker is being replaced; the next look finds the new one
            await self.repairs.pause()


def _has_helped(facts: Facts, result: RepairResult) -> bool:
    """False while the repair still goes on."""
    if result.ending == Ending.NEEDS_PERSON:
        _refuse_hopeless(facts.id, facts.verdict)
    if result.ending == Ending.GAVE_UP:
        raise TryLater(f"cannot set up {facts.id}: {result.sentence}", code="no_qr")
    return result.ending != GOES_ON


def _refuse_hopeless(id: InstanceId, verdict: HealthVerdict) -> None:
    if verdict.reason != "qr_idle":  # asking for its code wakes that session
        raise Refused(f"cannot show a code for {id}: {verdict.sentence}", code=verdict.reason)
