"""Asks the machines that may take this one over for a promise to wait."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from agent.errors import WaError
from agent.fleet.coordinator import Member
from agent.fleet.fleet_file import Rival

AskRival = Callable[[Rival, int, int], Awaitable[bool]]
"""Ask a machine, over its own address, for a promise to our id in our epoch."""


async def promised_by(
    rivals: Iterable[Rival], member: Member, ask_rival: AskRival, seconds: float
) -> set[int]:
    """The ids of those that promised within so many seconds."""

    async def ask(rival: Rival) -> int | None:
        try:
            async with asyncio.timeout(seconds):
                return rival.id if await ask_rival(rival, member.id, member.epoch) else None
        except (WaError, OSError, TimeoutError):
            return None

    return {id for id in await asyncio.gather(*map(ask, rivals)) if id is not None}
