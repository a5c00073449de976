"""Logging in: wait for a code to scan, or ask for a code to type on a phone."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agent.engines.evolution import renewal
from agent.engines.evolution.answers import Shown
from agent.engines.evolution.api import EvolutionApi
from agent.engines.evolution.claims import Live
from agent.engines.evolution.known import Code, Known
from agent.engines.evolution.settings import Pace
from agent.errors import EngineError

Show = Callable[[], Awaitable[None]]
"""Ask the server for the code that it shows, and note it."""


async def wait_for_code(known: Known, show: Show, pace: Pace) -> Code | None:
    """The first code comes a moment after the login began."""
    return await _wait(
        known, show, pace, within=pace.code_wait, wanted=lambda code: bool(code.text)
    )


async def pairing_code(
    api: EvolutionApi,
    known: Known,
    name: str,
    digits: str,
    pace: Pace,
    *,
    take: Callable[[Shown], Awaitable[None]],
) -> Mapping[str, Any]:
    """`known` is of this moment."""
    if known.live is Live.OPEN or known.paired:
        raise EngineError("cannot get a pairing code: no scan is due", code="not_waiting")
    if known.live is Live.CONNECTING:
        # The number counts only when a login begins; there is no pairing to lose here.
        await api.logout(name)
        await renewal.is_logged_out(api, name, pace)
        known.note_live(Live.CLOSE)
    known.begin()
    known.note_live(Live.CONNECTING)
    await take(await api.connect(name, digits))

    async def show() -> None:
        await take(await api.connect(name))

    code = await _wait(
        known,
        show,
        pace,
        within=pace.pairing_wait,
        wanted=lambda code: bool(code.pairing_code),
    )
    if code is None:
        raise EngineError("cannot get a pairing code: none came", code="not_ready")
    left = pace.code_holds - (time.monotonic() - code.at)
    return {"code": code.pairing_code, "expires_in": round(max(1.0, left), 1)}


async def _wait(
    known: Known,
    show: Show,
    pace: Pace,
    *,
    within: float,
    wanted: Callable[[Code], bool],
) -> Code | None:
    deadline = time.monotonic() + within
    while True:
        code = known.code()
        if code is not None and wanted(code):
            return code
        if known.live is not Live.CONNECTING or time.monotonic() > deadline:
            return None
        await asyncio.sleep(pace.look_every)
        await show()
