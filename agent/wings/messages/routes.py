"""What arrived in a session, read in pages or live."""

from aiohttp import web

from agent.api.http.auth import Right
from agent.api.http.call import Call, Json, Route
from agent.api.http.fields import INTEGER, STRING, Field
from agent.core.model import ID_PATTERN
from agent.errors import InvalidRequest, Unauthorized
from agent.messages.reader import LONGEST_PAGE, READER
from agent.messages.record import COMMON, OWN
from agent.wings.messages.live import follow
from agent.wings.messages.media_routes import ROUTES as MEDIA_ROUTES
from agent.wings.messages.outbox_routes import ROUTES as OUTBOX_ROUTES
from agent.wings.messages.part import MessagesPart

MESSAGES = f"/api/instance/{{id:{ID_PATTERN}}}/messages"
NEWEST = "newest"
LONGEST_CURSOR = 15
"""Digits: beyond them not every reader's numbers are exact, and no session comes so far."""
AFTER = Field(
    "after",
    STRING,
    'cursor of the last record that you have; default 0 = begin at the oldest; "newest" = only what'
    " comes from now on",
    least=1,
    most=LONGEST_CURSOR,
    pattern=f"{NEWEST}|[0-9]{{1,{LONGEST_CURSOR}}}",
)
PAGE = (
    AFTER,
    Field("limit", INTEGER, "records at most, default 100", least=1, most=LONGEST_PAGE),
    Field("wait", INTEGER, "seconds to wait for the first record, default 0", most=60),
)


async def read(call: Call) -> Json:
    after, reader = cursor_of(call), call.parts.wing(MessagesPart).reader
    wait = float(call.query.get("wait", 0))
    limit = call.query.get("limit", 100)
    page = await reader.page(call.id, after, limit=limit, wait=wait)
    if call.caller.key and not call.parts.ring.knows(call.caller.key):
        raise Unauthorized("cannot accept this key: it was revoked meanwhile")
    if wait and after and after <= page.newest:
        reader.settle(READER, call.id, after)
    return {
        "records": page.records,
        "next": page.next,
        "oldest": page.oldest,
        "newest": page.newest,
        "more": page.more,
    }


async def live(call: Call) -> web.StreamResponse:
    return await follow(call, call.parts.wing(MessagesPart).reader, cursor_of(call))


async def count(call: Call) -> Json:
    part = call.parts.wing(MessagesPart)
    kept = part.reader.figures()
    waits = {id: part.sending.waiting(id) for id in call.supervisor.views()}
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


def _page_schema() -> dict[str, object]:
    whole = {"type": "integer"}
    return {
        "type": "object",
        "required": ["records", "next", "oldest", "newest", "more"],
        "properties": {
            "records": {"type": "array", "items": _record_schema(), "description": "oldest first"},
            "next": {**whole, "description": "the `after` of the next request"},
            "oldest": {**whole, "description": "cursor of the oldest record that is kept"},
            "newest": {**whole, "description": "cursor of the newest one"},
            "more": {"type": "boolean", "description": "there is more already"},
        },
    }


def _record_schema() -> dict[str, object]:
    """The JSON schema of what a reader gets."""
    fixed = {
        "v": {"type": "integer", "description": "version of the record's form"},
        "cursor": {
            "type": "integer",
            "description": "its place in the session, higher each time",
        },
        "id": {"type": "string", "description": "the same for the same thing that comes again"},
        "kind": {"type": "string", "enum": list(OWN)},
        "kept": {"type": "number", "description": "when the agent kept it, in Unix seconds"},
        "cut": {"type": "boolean", "description": "parts were left out, it was too long"},
        "answerable": {
            "type": "boolean",
            "description": "of a message: false if its chat takes no answer, such as status posts"
            " (status@broadcast), broadcast lists, channels, and addresses that POST refuses",
        },
    }
    fields = {
        name: {**wanted, "description": meaning}
        for own in (COMMON, *OWN.values())
        for name, (wanted, meaning) in own.items()
    }
    required = ["v", "cursor", "id", "kind"]
    return {"type": "object", "properties": {**fixed, **fields}, "required": required}


ROUTES = (
    Route(
        "GET",
        MESSAGES,
        Right.OPERATE,
        read,
        "What arrived in a session, oldest first: messages, reactions, states of sent ones, calls",
        query=PAGE,
        waits=True,
        shows=_page_schema(),
    ),
    Route(
        "GET",
        f"{MESSAGES}/live",
        Right.OPERATE,
        live,
        "The same over a WebSocket: one record each",
        query=(AFTER,),
        answers=(101,),
    ),
    Route(
        "GET",
        "/api/messages",
        Right.READ,
        count,
        "How many kept records wait for who gets them, by session",
    ),
    *MEDIA_ROUTES,
    *OUTBOX_ROUTES,
)
