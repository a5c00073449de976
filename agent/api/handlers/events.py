"""Events, live over a WebSocket; without an upgrade, the history of all instances.

A listener that comes back names its last cursor and gets the later entries from the journal before
new ones, without gap or repetition.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

from aiohttp import web

from agent.api.handlers.instances import HISTORY, read_history
from agent.api.http.call import Call
from agent.api.http.envelope import json_answer
from agent.api.http.fields import INTEGER, STRINGS, Field
from agent.api.http.live import send_frame, serve_live
from agent.core.model import ID_PATTERN, Category, InstanceId, JournalEntry, parse_instance_id
from agent.core.session import show_event
from agent.deliver.bus import EventFilter, Subscription
from agent.errors import Forbidden, InvalidRequest

EVENTS = (
    *HISTORY,
    Field("instance", STRINGS, "only these instances", most=1000, pattern=ID_PATTERN),
    Field("category", STRINGS, "only these categories", choices=tuple(Category)),
    Field("heartbeat", INTEGER, "seconds between heartbeats, default 15", least=1, most=300),
)
Send = Callable[[dict[str, Any]], Awaitable[None]]
_PAGE = 500


async def events(call: Call) -> web.StreamResponse:
    """Live events over a WebSocket; the history without one."""
    if call.request.headers.get("Upgrade", "").lower() == "websocket":
        every = float(call.query.get("heartbeat", 15))
        return await serve_live(
            call,
            _filter(call),
            lambda listener, subscription: [_write(call, listener, subscription, every)],
            heartbeat=every,
        )
    if not call.caller.sees(None):
        raise Forbidden("cannot read every instance's history with this key", field="scopes")
    for name in ("instance", "category", "heartbeat"):
        if name in call.query:
            raise InvalidRequest(f"cannot use {name} without a WebSocket", field=name)
    return json_answer(await read_history(call, None))


def _filter(call: Call) -> EventFilter:
    ids = frozenset(parse_instance_id(word) for word in call.query.get("instance", ()))
    if not call.caller.sees(None):
        ids = ids or call.caller.instances
        for id in ids:
            if not call.caller.sees(id):
                raise Forbidden(f"cannot listen to {id} with this key", field="scopes")
    return EventFilter(
        instances=ids,
        kinds=frozenset(call.query.get("kind", ())),
        categories=frozenset(Category(word) for word in call.query.get("category", ())),
    )


async def _write(
    call: Call, listener: web.WebSocketResponse, subscription: Subscription, every: float
) -> None:
    send: Send = partial(send_frame, listener)
    cursor = call.query.get("after")
    await send({"type": "hello", "cursor": cursor})
    # A recreated journal counts from 1 again: the listener's cursor is ahead of it.
    if cursor is not None and cursor > await _newest(call):
        cursor = 0
        await send({"type": "reset", "cursor": cursor})
    elif cursor is not None:
        cursor = await _catch_up(call, send, subscription.wanted, cursor)
    while True:
        try:
            async with asyncio.timeout(every):
                entry = await subscription.get()
        except TimeoutError:
            await send({"type": "heartbeat", "cursor": cursor})
            continue
        if entry is None:
            return
        if entry.cursor == 0:
            # It is in no journal: a listener that comes back resumes at the journal's cursor.
            await _send_event(send, replace(entry, cursor=cursor or 0))
        elif cursor is None or entry.cursor > cursor:
            await _send_event(send, entry)
            cursor = entry.cursor


async def _newest(call: Call) -> int:
    newest = await call.supervisor.history(None, limit=1)
    return newest[0].cursor if newest else 0


async def _catch_up(call: Call, send: Send, wanted: EventFilter, cursor: int) -> int:
    only: InstanceId | None = next(iter(wanted.instances)) if len(wanted.instances) == 1 else None
    while True:
        page = await call.supervisor.history(only, after=cursor, limit=_PAGE, kinds=wanted.kinds)
        for entry in page:
            if wanted.matches(entry):
                await _send_event(send, entry)
            cursor = entry.cursor
        if len(page) < _PAGE:
            return cursor


async def _send_event(send: Send, entry: JournalEntry) -> None:
    await send({"type": "event", **show_event(entry)})
