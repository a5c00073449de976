"""What arrives in a session over a WebSocket. Its reader sets the pace: no more than one page is in
memory, and one that does not read is let go."""

import asyncio

from aiohttp import web

from agent.api.http.call import Call
from agent.api.http.live import send_frame, serve_live
from agent.deliver.bus import NOTHING, Subscription
from agent.errors import Refused, TryLater, WaError
from agent.messages.reader import ENDING, LOOK_AGAIN, READER, Reader

PAGE = 50
_WAIT = 15.0
"""Seconds after which it looks again though it heard of no news."""
_STATES = ("not_running", "slow")
"""Codes of a session whose worker is expected back."""


async def follow(call: Call, reader: Reader, after: int | None) -> web.StreamResponse:
    if call.request.headers.get("Upgrade", "").lower() != "websocket":
        raise Refused(
            f"cannot follow messages of {call.id} without a WebSocket to its own machine; without"
            " one ask …/messages?wait=30",
            code="websocket_needed",
        )
    try:
        page = await reader.page(call.id, after, limit=1)
    except (Refused, TryLater) as error:
        if error.code not in _STATES or after is None:
            raise
    else:
        after = page.next if after is None else after
    return await serve_live(
        call, NOTHING, lambda listener, ends: [_write(call, reader, listener, ends, after or 0)]
    )


async def _write(
    call: Call, reader: Reader, listener: web.WebSocketResponse, ends: Subscription, after: int
) -> None:
    while not reader.ending:
        try:
            page = await reader.page(call.id, after, limit=PAGE, wait=_WAIT)
        except WaError as error:
            if error.code == ENDING:
                break
            if error.code not in _STATES:
                ends.end(str(error))
                return
            await asyncio.sleep(LOOK_AGAIN)
            continue
        for record in page.records:
            try:
                await send_frame(listener, record)
            except TimeoutError:
                ends.end("too slow: it does not read")
                return
        if after != page.next:
            after = page.next
            reader.settle(READER, call.id, after)
    ends.end("the agent stops")
