"""What arrives in a session over a WebSocket. Its reader sets the pace: no more than one page is in
memory, and who does not read is let go."""

from aiohttp import web

from agent.api.http.call import Call
from agent.api.http.live import send_frame, serve_live
from agent.deliver.bus import NOTHING, Subscription
from agent.errors import Refused, TryLater, WaError
from agent.supervise.messages.kept_messages import ENDING
from agent.wings.messages.part import MessagesPart

PAGE = 50
_WAIT = 15.0
"""Seconds after which it looks again though nothing was heard of."""
_STATES = ("not_running", "slow")
"""Codes of a session whose worker is expected back."""


async def follow(call: Call, part: MessagesPart, after: int | None) -> web.StreamResponse:
    if call.request.headers.get("Upgrade", "").lower() != "websocket":
        raise Refused(
            f"cannot follow messages of {call.id} without a WebSocket to its own machine; without"
            " one ask …/messages?wait=30",
            code="websocket_needed",
        )
    try:
        page = await part.source.page(call.id, after, limit=1)
    except (Refused, TryLater) as error:
        if error.code not in _STATES or after is None:
            raise
    else:
        after = page.next if after is None else after
    return await serve_live(
        call, NOTHING, lambda listener, ends: [_write(call, part, listener, ends, after or 0)]
    )


async def _write(
    call: Call, part: MessagesPart, listener: web.WebSocketResponse, ends: Subscription, after: int
) -> None:
    while not part.source.ending:
        try:
            page = await part.source.page(call.id, after, limit=PAGE, wait=_WAIT)
        except WaError as error:
            if error.code == ENDING:
                break
            if error.code not in _STATES:
                ends.end(str(error))
                return
            await part.source.wait(call.id, _WAIT)
            continue
        for record in page.records:
            try:
                await send_frame(listener, record)
            except TimeoutError:
                ends.end("too slow: it does not read")
                return
        if after != page.next:
            after = page.next
            await part.readers.note(call.id, after)
    ends.end("the agent stops")
