"""What arrived in a session, in pages or live; and what waits to be sent of it."""

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from agent.api.http.auth import Right
from agent.api.http.call import Call, Json, Route
from agent.api.http.fields import INTEGER, STRING, Field
from agent.api.http.live import send_frame, serve_live
from agent.core.model import ID_PATTERN
from agent.deliver.bus import NOTHING, Subscription
from agent.errors import InvalidRequest, Refused, TryLater, Unauthorized, WaError
from agent.messages.media_file import MEDIA, media
from agent.messages.outcomes import State
from agent.messages.reader import ENDING, LONGEST_PAGE, LOOK_AGAIN, READER, Reader
from agent.messages.record import COMMON, OWN

ONE = f"/api/instance/{{id:{ID_PATTERN}}}"
NEWEST = "newest"
LONGEST_CURSOR = 15
"""Digits: beyond them not every reader's numbers are exact, and no session comes so far."""
FRAMES = 50
"""Records in memory for one WebSocket."""
_WAIT = 15.0
"""Seconds after which a WebSocket looks again though it heard of no news."""
_EXPECTED_BACK = ("not_running", "slow")
"""Codes of a session whose worker is expected back."""


# What arrived


async def read(call: Call) -> Json:
    after, reader = cursor_of(call), call.parts.reader
    wait = float(call.query.get("wait", 0))
    page = await reader.page(call.id, after, limit=call.query.get("limit", 100), wait=wait)
    if call.caller.key and not call.parts.ring.knows(call.caller.key):
        raise Unauthorized("cannot accept this key: it was revoked meanwhile")
    if wait and after and after <= page.newest:
        reader.settle(READER, call.id, after)
    return page.show()


async def live(call: Call) -> web.StreamResponse:
    after, reader = cursor_of(call), call.parts.reader
    if call.request.headers.get("Upgrade", "").lower() != "websocket":
        raise Refused(
            f"cannot follow messages of {call.id} without a WebSocket to its own machine; without"
            " one ask …/messages?wait=30",
            code="websocket_needed",
        )
    try:
        page = await reader.page(call.id, after, limit=1)
        after = page.next if after is None else after
    except (Refused, TryLater) as error:
        if error.code not in _EXPECTED_BACK or after is None:
            raise
    return await serve_live(
        call, NOTHING, lambda listener, ends: [_write(call, reader, listener, ends, after)]
    )


async def _write(
    call: Call, reader: Reader, listener: web.WebSocketResponse, ends: Subscription, after: int
) -> None:
    """The listener sets the pace; one that does not read is let go."""
    while not reader.ending:
        try:
            page = await reader.page(call.id, after, limit=FRAMES, wait=_WAIT)
        except WaError as error:
            if error.code == ENDING:
                break
            if error.code not in _EXPECTED_BACK:
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


async def count(call: Call) -> Json:
    kept = call.parts.reader.figures()
    waits = {id: call.parts.sending.waiting(id) for id in call.supervisor.views()}
    return {
        "sessions": [
            {
                "instance": id,
                **{name: kept.get(id, {}).get(name, 0) for name in ("waiting", "bytes", "lost")},
                "outbox": waits.get(id, {}),
            }
            for id in sorted({*kept, *(id for id, some in waits.items() if some)})
        ]
    }


def cursor_of(call: Call) -> int | None:
    """None = behind the newest."""
    text = call.query.get("after", "0")
    if text == NEWEST:
        return None
    # int() alone would take "1_0", " 1" and Arabic digits.
    if not (text.isascii() and text.isdigit() and len(text) <= LONGEST_CURSOR):
        raise InvalidRequest(
            f"cannot use the field 'after': it must be a cursor or {NEWEST}, not {text!r:.40}",
            field="after",
        )
    return int(text)


# What waits to be sent


async def list_outbox(call: Call) -> Json:
    call.supervisor.view(call.id)
    sending, query = call.parts.sending, call.query
    limit = query.get("limit", 100)
    rows = await sending.page(call.id, query.get("state", ""), query.get("before", ""), limit)
    return {
        "messages": rows,
        "outbox": sending.waiting(call.id),
        "before": rows[-1]["id"] if len(rows) == limit else None,
    }


async def show(call: Call) -> Json:
    call.supervisor.view(call.id)
    return await call.parts.sending.show(call.id, call.request.match_info["message"])


async def cancel(call: Call) -> Json:
    call.supervisor.view(call.id)
    return await call.parts.sending.cancel(call.id, call.request.match_info["message"])


# The table


def _schema(required: str, **fields: tuple[Mapping[str, Any], str]) -> dict[str, Any]:
    """Each field with its type and its meaning."""
    told = {name: {**kind, "description": meaning} for name, (kind, meaning) in fields.items()}
    return {"type": "object", "required": required.split(), "properties": told}


_INTEGER, _BOOLEAN, _KINDS = {"type": "integer"}, {"type": "boolean"}, {"enum": list(OWN)}
_RECORD = _schema(
    "v cursor id kind",
    v=(_INTEGER, "version of the record's form"),
    cursor=(_INTEGER, "its place in the session, higher each time"),
    id=({"type": "string"}, "the same for the same thing that comes again"),
    kind=({"type": "string", **_KINDS}, "what it is"),
    kept=({"type": "number"}, "when the agent kept it, in Unix seconds"),
    cut=(_BOOLEAN, "parts were left out, it was too long"),
    answerable=(_BOOLEAN, "of a message: false if its chat takes no answer, as POST says"),
    **{name: told for fields in (COMMON, *OWN.values()) for name, told in fields.items()},
)
_PAGE = _schema(
    "records next oldest newest more",
    records=({"type": "array", "items": _RECORD}, "oldest first"),
    next=(_INTEGER, "the `after` of the next request"),
    oldest=(_INTEGER, "cursor of the oldest record that is kept"),
    newest=(_INTEGER, "cursor of the newest one"),
    more=(_BOOLEAN, "there is more already"),
)
_AFTER = Field(
    "after",
    STRING,
    'cursor of the last record that you have; default 0 = begin at the oldest; "newest" = only what'
    " comes from now on",
    least=1,
    most=LONGEST_CURSOR,
    pattern=f"{NEWEST}|[0-9]{{1,{LONGEST_CURSOR}}}",
)
_READ = (
    _AFTER,
    Field("limit", INTEGER, "records at most, default 100", least=1, most=LONGEST_PAGE),
    Field("wait", INTEGER, "seconds to wait for the first record, default 0", most=60),
)
_LIST = (
    Field("state", STRING, "only these", choices=tuple(State)),
    Field("before", STRING, "the id of the last one that was seen", least=1, most=200),
    Field("limit", INTEGER, "most messages, default 100", least=1, most=500),
)
# One of the outbox ("out_…") or of WhatsApp.
_SENT = f"{ONE}/outbox/{{message:[A-Za-z0-9._:@=-]{{1,200}}}}"
_OPERATE = Right.OPERATE

ROUTES = (
    Route(
        *("GET", f"{ONE}/messages", _OPERATE, read),
        "What arrived in a session, oldest first: messages, reactions, states of sent ones, calls",
        query=_READ,
        waits=True,
        shows=_PAGE,
    ),
    Route(
        *("GET", f"{ONE}/messages/live", _OPERATE, live),
        "The same over a WebSocket: one record each",
        query=(_AFTER,),
        answers=(101,),
    ),
    Route(
        *("GET", "/api/messages", Right.READ, count),
        "How many kept records wait for who gets them, by session",
    ),
    Route(
        *("GET", f"{ONE}/messages/{{message:[^/]{{1,600}}}}/media", _OPERATE, media),
        "The file that a message brought, as an attachment; it is loaded from WhatsApp first where"
        " it is not kept yet",
        query=MEDIA,
    ),
    Route(
        *("GET", f"{ONE}/outbox", _OPERATE, list_outbox),
        "Messages that wait to be sent and what became of the others, newest first",
        query=_LIST,
    ),
    Route("GET", _SENT, _OPERATE, show, "One message to send, by its id or by WhatsApp's"),
    Route("DELETE", _SENT, _OPERATE, cancel, "Cancel a message that was not sent yet", ()),
)
