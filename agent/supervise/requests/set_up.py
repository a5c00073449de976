"""Set-up: make an instance, or make it healthy, until it shows a code to scan or is connected."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from agent.core.model import ConnectionStatus, Instance, InstanceId
from agent.core.recovery.repair import Ending, Goal
from agent.engines.base import Qr
from agent.errors import LinkError, Refused, TryLater
from agent.supervise.registry import Registry
from agent.supervise.requests.calls import Calls
from agent.supervise.requests.repairs import GOES_ON, RepairResult, Repairs


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
        """Create the instance, or enable it; then repair it until it is connected or shows a QR.
        `wait`: seconds after which it is answered, whatever still goes on."""
        id, deadline = wanted.id, time.monotonic() + wait
        # A second request for the same new instance joins the first: it is created once.
        async with self._creating.setdefault(id, asyncio.Lock()):
            facts = self.registry.facts.get(id)
            if facts is None:
                await self.create(wanted)
        if facts is None:
            self._creating.pop(id, None)
        elif wanted.engine and facts.instance.engine != wanted.engine:
            raise Refused(
                f"cannot set up {id} with {wanted.engine}: it exists and its engine is"
                f" {facts.instance.engine}",
                field="engine",
                code="other_engine",
            )
        elif not facts.desired.should_run:
            await self.enable(id)
        left = max(deadline - time.monotonic(), 0.0)
        result = await self.repairs.until(
            Goal.WORKING_QR, id, wait=left, confirmed=confirmed, passkey=passkey
        )
        made = SetUp(id, facts is None, result, qr=None, goes_on=result.ending == GOES_ON)
        verdict = self.registry.get(id).verdict
        # Asking for its code wakes one whose codes expired.
        if result.ending == Ending.NEEDS_PERSON and verdict.reason != "qr_idle":
            raise Refused(f"cannot show a code for {id}: {verdict.sentence}", code=verdict.reason)
        if result.ending == Ending.GAVE_UP:
            raise TryLater(f"cannot set up {id}: {result.sentence}", code="no_qr")
        while not made.goes_on:
            status = self.registry.get(id).record.status
            if status is ConnectionStatus.CONNECTED:
                break
            if status is ConnectionStatus.QR_REQUIRED:
                # The worker may be replaced meanwhile: the next look finds the new one.
                with suppress(LinkError, Refused):
                    if (shown := await self.asking.qr(id)) is not None and shown.expires_in > 0:
                        return replace(made, qr=shown)
            if time.monotonic() >= deadline:
                return replace(made, goes_on=True)
            await self.repairs.pause()
        return made
