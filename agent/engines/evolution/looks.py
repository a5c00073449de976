"""Reads from the server a session's settled state, code, row and place in the list."""

import asyncio
from typing import Any

from agent.engines.evolution.answers import Shown
from agent.engines.evolution.api import EvolutionApi
from agent.engines.evolution.claims import Live
from agent.engines.evolution.known import Known
from agent.engines.evolution.shared import Server, listed_row
from agent.engines.evolution.subscription import Hooked


async def settled_state(server: Server, known: Known, remote: str) -> Live:
    """Between two tries to connect a server says `close` for a moment; a connect in that moment
    would begin a second connection beside its own."""
    live = await server.api.state(remote)
    if live is Live.CLOSE and known.live in (Live.OPEN, Live.CONNECTING):
        await asyncio.sleep(min(server.pace.look_every, server.probe_limit / 8))
        live = await server.api.state(remote)
    return live


async def take_shown(api: EvolutionApi, known: Known, remote: str, shown: Shown) -> None:
    """A code proves a missing pairing only where it is new and the server's own row agrees: a
    session that lost its connection shows the code of its last login."""
    if shown.state in (Live.OPEN, Live.CONNECTING, Live.CLOSE):
        known.note_live(Live(shown.state))
    if known.is_current(shown):
        known.note_shown(shown)
    elif shown.code and not api.old:
        found = await api.row_now(remote)
        row = found[0] if found is not None else None
        if row is not None and row.status == Live.CONNECTING and known.live is Live.CONNECTING:
            known.note_row(row)
            known.note_shown(shown)
        elif row is not None and row.status == Live.OPEN:
            known.note_row(row)
    elif known.is_news(shown):
        known.note_shown(shown)


async def learn_pairing(server: Server, known: Known, remote: str) -> None:
    """An older list may tell that a pairing stands; only a newer one that none does."""
    found = await listed_row(server, remote)
    row, age = found or (None, 0.0)
    if row is not None and (row.status == Live.OPEN or age <= known.seconds()):
        known.note_row(row)
        return
    await take_row(server.api, known, remote)


async def take_row(api: EvolutionApi, known: Known, remote: str) -> None:
    """Its own row, read now: why it closed, and whether a pairing still stands."""
    if (found := await api.row_now(remote)) is not None:
        known.note_row(found[0])


async def deep(server: Server, known: Known, remote: str) -> dict[str, Any]:
    server.hooks.want(remote)
    found = await listed_row(server, remote)
    row = found[0] if found is not None else None
    detail: dict[str, Any] = {
        "exists": known.live not in (Live.MISSING, Live.UNLOADED),
        "live": str(known.live),
        "listed": row is not None,
        "list_status": row.status if row is not None else "",
        "state_seconds": round(known.seconds(), 1),
        "compared": False,
    }
    if found is None:
        detail["listed"] = None  # no list came in time
    else:
        if (disagrees := known.compare(row, found[1])) is not None:
            detail["compared"] = True
            if disagrees:
                detail["disagrees"] = disagrees
        if known.live is Live.OPEN or found[1] <= known.seconds():
            known.note_row(row)
    if (hooked := server.hooks.word(remote)) is not Hooked.OFF:
        detail["webhook"] = str(hooked)
    return detail
