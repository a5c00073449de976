"""Asks the machines that may take this one over to wait, and says whether others may ask us."""

import asyncio
from collections.abc import Awaitable, Callable

from agent.core.fleet.lease import LeasePolicy
from agent.core.fleet.promises import may_promise
from agent.errors import WaError
from agent.fleet.coordinator import Member
from agent.fleet.fleet_file import FleetMemory, Rival

AskRival = Callable[[Rival, int, int, str], Awaitable[bool]]
"""Ask a machine, over its own address, for a promise to our id in our epoch; the last word is the
accepted loss of records that we have heard of."""


def promises(
    now: FleetMemory, machine: int, epoch: int, accepted: str, policy: LeasePolicy
) -> bool:
    """Whether this machine may promise it to another one."""
    # After an accepted loss, sessions of the other machine may be this one's in a ttl.
    lost = (now.lost and not now.halted) or now.accepted.refuses(accepted)
    taken = any(it.id == machine and it.epoch > epoch for it in now.others)
    other_ttl = now.renewed is not None and now.renewed.ttl != policy.ttl
    if lost or taken or other_ttl or now.unheard:
        return False
    return may_promise(now.takeovers, machine, epoch)


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
