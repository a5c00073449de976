"""Asks the machines that may take this one over for a promise to wait, and promises it to them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from agent.clock import boot_now
from agent.core.fleet.lease import LeasePolicy
from agent.core.fleet.promises import Promises, give
from agent.errors import WaError
from agent.fleet.coordinator import Member
from agent.fleet.fleet_file import FleetMemory, Memory, Rival

AskRival = Callable[[Rival, int, int, str], Awaitable[bool]]
"""Ask a machine, over its own address, for a promise to our id in our epoch; the last word is the
accepted loss of records that we have heard of."""


async def promise(
    memory: Memory, machine: int, epoch: int, accepted: str, policy: LeasePolicy
) -> bool:
    """Whether this machine promises it to another one: then it is on the disk."""
    given = False

    def with_it(now: FleetMemory) -> FleetMemory:
        nonlocal given
        promises = promised(now, machine, epoch, accepted, policy)
        given = promises is not None
        return now if promises is None else replace(now, promises=promises)

    await memory.change(with_it)
    return given


def promised(
    now: FleetMemory, machine: int, epoch: int, accepted: str, policy: LeasePolicy
) -> Promises | None:
    """This machine's promises with one more; None: it may not be given."""
    # After an accepted loss, sessions of the other machine may be this one's in a ttl.
    lost = (now.lost and not now.halted) or now.accepted.refuses(accepted)
    if lost or (now.renewed is not None and now.renewed.ttl != policy.ttl):
        return None
    return give(now.promises, machine, epoch, boot_now(), policy)


async def promised_by(
    memory: FleetMemory, member: Member, ask_rival: AskRival, seconds: float
) -> set[int]:
    """The ids of those that promised within so many seconds."""

    async def ask(rival: Rival) -> int | None:
        try:
            async with asyncio.timeout(seconds):
                asked = ask_rival(rival, member.id, member.epoch, memory.accepted.loss)
                return rival.id if await asked else None
        except (WaError, OSError, TimeoutError):
            return None

    return {
        id for id in await asyncio.gather(*map(ask, memory.asked_for_promises)) if id is not None
    }
