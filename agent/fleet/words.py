"""Asks machines whose numbers stand still whether their leases hold: before one is taken over."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from agent.clock import boot_now
from agent.core.fleet.takeover import Word
from agent.errors import WaError
from agent.fleet.coordinator import Member
from agent.fleet.peers import PeerLost, Peers, Reached, Sent

if TYPE_CHECKING:
    from agent.fleet.keeper import Keeper

_JSON = {"Content-Type": "application/json"}
MOST = 50
"""Machines that are asked at once; the others, and their sessions, wait for the next time."""

AskWord = Callable[[Reached, Member], Awaitable[Word]]
"""WaError or OSError where it does not answer."""


def word_of(keeper: "Keeper") -> Word:
    """What this machine says of its own lease."""
    holds = keeper.lease.holds(boot_now())
    by_renewal = holds and keeper.lease_by == "renewal"
    return Word(holds, keeper.takeovers.server if by_renewal else "")


def over(peers: Peers) -> AskWord:
    """A machine of the version before says nothing of its lease."""

    async def ask(row: Reached, member: Member) -> Word:
        asked = {"machine": member.id, "epoch": member.epoch, "to": row.name, "rehearsal": True}
        sent = Sent("POST", "/api/fleet/promise", _JSON, json.dumps(asked).encode())
        try:
            _, answer = await peers.ask(row, sent)
        except PeerLost:  # it closed an idle connection; asking twice does no harm
            _, answer = await peers.ask(row, sent)
        return Word(answer.get("holds") is True, str(answer.get("renewed_in") or ""))

    return ask


async def words_of(
    rows: Iterable[tuple[int, Reached]], member: Member, ask: AskWord, seconds: float
) -> Mapping[int, Word]:
    """By id, of those that answer within so many seconds."""

    async def one(id: int, row: Reached) -> tuple[int, Word] | None:
        try:
            async with asyncio.timeout(seconds):
                return id, await ask(row, member)
        except (WaError, OSError, TimeoutError):
            return None

    told = await asyncio.gather(*(one(id, row) for id, row in rows))
    return dict(it for it in told if it is not None)
