"""A WebSocket that only the agent speaks on: who listens may leave, must read, and is told why it
ends."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from agent.api.http.call import REVOKED, Call, Listener
from agent.deliver.bus import EventFilter, Subscription

Writers = Callable[[web.WebSocketResponse, Subscription], Sequence[Coroutine[Any, Any, None]]]
"""What writes to a listener; the first one that ends, ends it."""
PROTOCOL = "wa-agent"
_SEND_SECONDS = 10.0
_GOODBYE_SECONDS = 1.0
_LOUDEST = 20
"""Messages that a listener may send in a minute; the agent ignores them."""


async def serve_live(
    call: Call, wanted: EventFilter, writers: Writers, *, heartbeat: float = 15.0
) -> web.WebSocketResponse:
    listener = web.WebSocketResponse(
        heartbeat=max(heartbeat, 5.0), max_msg_size=4096, compress=False, protocols=(PROTOCOL,)
    )
    await listener.prepare(call.request)
    # Subscribed before the journal is read: events meanwhile wait in the queue.
    subscription = call.supervisor.bus.subscribe(wanted, limit=call.parts.section.event_queue)
    call.parts.listeners[listener] = Listener(call.request.transport, call.caller.key, subscription)
    if call.caller.key and not call.parts.ring.knows(call.caller.key):
        subscription.end(REVOKED)  # while the listener came in
    # The end of a subscription has a task of its own: a writer may hang in a send to a listener
    # that does not read.
    works = (_watch_incoming(listener), subscription.ended(), *writers(listener, subscription))
    tasks = [asyncio.create_task(work, name="live") for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await say_goodbye(listener, call.request.transport, subscription.dropped or "closed")
    finally:
        subscription.close()
        call.parts.listeners.pop(listener, None)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return listener


async def send_frame(listener: web.WebSocketResponse, frame: Mapping[str, Any]) -> None:
    async with asyncio.timeout(_SEND_SECONDS):
        await listener.send_str(json.dumps(frame, separators=(",", ":")))


async def _watch_incoming(listener: web.WebSocketResponse) -> None:
    """Returns when the listener leaves or sends too much."""
    loop = asyncio.get_running_loop()
    begun, received = loop.time(), 0
    async for message in listener:
        if message.type is WSMsgType.ERROR:
            return
        if loop.time() - begun > 60:
            begun, received = loop.time(), 0
        received += 1
        if received > _LOUDEST:
            return


async def say_goodbye(
    listener: web.WebSocketResponse, transport: asyncio.Transport | None, reason: str
) -> None:
    """Closes with the reason if the listener still reads, and aborts if it does not."""
    slow = reason.startswith("too slow")
    code = WSCloseCode.TRY_AGAIN_LATER if slow else WSCloseCode.GOING_AWAY
    if reason == REVOKED:
        code = WSCloseCode.POLICY_VIOLATION
    try:
        async with asyncio.timeout(_GOODBYE_SECONDS):
            await listener.close(code=code, message=reason.encode()[:120], drain=False)
    except (TimeoutError, ConnectionError):
        pass
    finally:
        # close() alone waits for a full send buffer that the listener does not read.
        if transport is not None and transport.get_write_buffer_size():
            transport.abort()
