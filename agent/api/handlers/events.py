"""Events, live over a WebSocket; without an upgrade, the history of all instances.

Only the agent speaks on a WebSocket: a listener may leave, must read, and gets the reason of its
end. One that comes back names its last cursor and gets the later entries from the journal before
new ones, without gap or repetition."""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from agent.api.handlers.instances import HISTORY, read_history
from agent.api.http.call import REVOKED, Answer, Call, Field
from agent.core import model, session
from agent.core.words import ID_PATTERN, InstanceId, parse_instance_id
from agent.deliver.bus import EventFilter, Subscription
from agent.errors import Forbidden, InvalidRequest

Write = Callable[[web.WebSocketResponse, Subscription], Coroutine[Any, Any, None]]
"""Writes to a listener, which ends with it."""
HEARTBEAT = 5.0
"""Seconds; the page counts on it."""
_SEND_SECONDS = 10.0
_LOUDEST = 20
"""Messages that a listener may send in a minute; the agent ignores them."""


async def serve_live(call: Call, wanted: EventFilter, write: Write) -> web.WebSocketResponse:
    listener = web.WebSocketResponse(
        heartbeat=15.0, max_msg_size=4096, compress=False, protocols=("wa-agent",)
    )
    await listener.prepare(call.request)
    # Subscribed before the journal is read: events meanwhile wait in the queue.
    subscription = call.supervisor.bus.subscribe(wanted, limit=call.parts.section.event_queue)
    call.parts.listeners[subscription] = call.caller.key
    if call.caller.key and not call.parts.ring.knows(call.caller.key):
        subscription.end(REVOKED)  # while the listener came in
    # The end of a subscription has a task of its own: a writer may hang in a send to a listener
    # that does not read.
    works = (_watch_incoming(listener), subscription.ended(), write(listener, subscription))
    tasks = [asyncio.create_task(work, name="live") for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await _say_goodbye(listener, call.request.transport, subscription.dropped or "closed")
    finally:
        subscription.close()
        call.parts.listeners.pop(subscription, None)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return listener


async def send_frame(listener: web.WebSocketResponse, frame: Mapping[str, Any]) -> None:
    async with asyncio.timeout(_SEND_SECONDS):
        await listener.send_str(json.dumps(frame, separators=(",", ":")))


async def _watch_incoming(listener: web.WebSocketResponse) -> None:
    """Returns when the listener leaves or sends too much."""
    now, heard = asyncio.get_running_loop().time, deque[float](maxlen=_LOUDEST)
    async for message in listener:
        if (len(heard) == _LOUDEST and now() - heard[0] < 60) or message.type is WSMsgType.ERROR:
            return
        heard.append(now())


async def _say_goodbye(
    listener: web.WebSocketResponse, transport: asyncio.Transport | None, reason: str
) -> None:
    """Closes with the reason if the listener still reads, and aborts if it does not."""
    code = WSCloseCode.POLICY_VIOLATION if reason == REVOKED else WSCloseCode.GOING_AWAY
    if reason.startswith("too slow"):
        code = WSCloseCode.TRY_AGAIN_LATER
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(1.0):
            await listener.close(code=code, message=reason.encode()[:120], drain=False)
    # close() alone waits for a full send buffer that the listener does not read.
    if transport is not None and transport.get_write_buffer_size():
        transport.abort()


EVENTS = (*HISTORY, Field("instance", list, "only these instances", most=1000, pattern=ID_PATTERN))
_PAGE = 500
_OWN = "; ask /api/instance/ID/events, or open a WebSocket"


async def events(call: Call) -> Answer:
    """Live events over a WebSocket; without one the history, for which the key needs scope read."""
    if call.request.headers.get("Upgrade", "").lower() == "websocket":
        return await serve_live(call, _filter(call), partial(_write, call))
    if not call.caller.sees(None):
        raise Forbidden(f"cannot read every instance's history with this key{_OWN}", field="scopes")
    if "instance" in call.query:
        raise InvalidRequest(f"cannot use instance without a WebSocket{_OWN}", field="instance")
    return await read_history(call, None)


def _filter(call: Call) -> EventFilter:
    ids = frozenset(parse_instance_id(word) for word in call.query.get("instance", ()))
    if not call.caller.sees(None):
        ids = ids or call.caller.instances
        for id in ids - call.caller.instances:
            raise Forbidden(f"cannot listen to {id} with this key", field="scopes")
    return EventFilter(ids, frozenset(call.query.get("kind", ())))


async def _write(call: Call, listener: web.WebSocketResponse, subscription: Subscription) -> None:
    cursor = call.query.get("after")
    await send_frame(listener, {"type": "hello", "cursor": cursor})
    # A recreated journal counts from 1 again: the listener's cursor is ahead of it.
    newest = await call.supervisor.history(None, limit=1)
    if cursor is not None and cursor > (newest[0].cursor if newest else 0):
        cursor = 0
        await send_frame(listener, {"type": "reset", "cursor": cursor})
    elif cursor is not None:
        cursor = await _catch_up(call, listener, subscription.wanted, cursor)
    while True:
        try:
            async with asyncio.timeout(HEARTBEAT):
                entry = await subscription.get()
        except TimeoutError:
            await send_frame(listener, {"type": "heartbeat", "cursor": cursor})
            continue
        if entry is None:
            return
        if entry.cursor == 0:
            # It is in no journal: a listener that comes back resumes at the journal's cursor.
            await _send_event(listener, replace(entry, cursor=cursor or 0))
        elif cursor is None or entry.cursor > cursor:
            await _send_event(listener, entry)
            cursor = entry.cursor


async def _catch_up(
    call: Call, listener: web.WebSocketResponse, wanted: EventFilter, cursor: int
) -> int:
    only: InstanceId | None = next(iter(wanted.instances)) if len(wanted.instances) == 1 else None
    while True:
        page = await call.supervisor.history(only, after=cursor, limit=_PAGE, kinds=wanted.kinds)
        for entry in page:
            if wanted.matches(entry):
                await _send_event(listener, entry)
            cursor = entry.cursor
        if len(page) < _PAGE:
            return cursor


async def _send_event(listener: web.WebSocketResponse, entry: model.JournalEntry) -> None:
    await send_frame(listener, {"type": "event", **session.show_event(entry)})
