"""Messages that come and go in one session while faults are played, and what became of them."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scripts.nemeses.rounds import Chaos
from tests.fleet.traffic import Traffic

PAUSE = 0.25
ARRIVES_WITHIN = 120.0
"""Seconds after the last round: what a machine had to send goes when that is back."""


@asynccontextmanager
async def flowing(found: Chaos, *, count: bool) -> AsyncIterator[Traffic | None]:
    if not count:
        yield None
        return
    traffic = Traffic(found.fleet, found.ids[0])
    async with traffic.flowing(PAUSE):
        yield traffic


async def counted(traffic: Traffic) -> str:
    """AssertionError: one was lost though its machine was not, or one came twice."""
    end = time.monotonic() + ARRIVES_WITHIN
    while (await traffic.lost_in() and not traffic.gaps()) or traffic.lost_out():
        assert time.monotonic() < end, (await traffic.lost_in(), traffic.lost_out())
        await asyncio.sleep(1)
    lost, doubled = await traffic.lost_in(), traffic.doubled()
    assert not doubled, doubled
    return (
        f"{len(traffic.said)} messages came, {len(traffic.sent)} were sent: none doubled, none that"
        f" was sent lost; {len(lost)} that came were lost with machines, told by"
        f" {len(traffic.gaps())} gaps"
    )
