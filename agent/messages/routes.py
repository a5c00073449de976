"""Routes of messages: those that arrived in a session, in pages or live, with their files; and
those that wait to be sent.

A file goes out in pieces of which one is in memory. Its name and its type are words of the contact:
neither may choose a path, draw on a terminal or run as a page.
"""

import asyncio
import mimetypes
import re
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

import msgspec
from aiohttp import web

from agent.api.handlers.events import send_frame, serve_live
from agent.api.http.auth import Right
from agent.api.http.call import Call, Field, Json, route
from agent.api.present import HEADERS
from agent.deliver.bus import NOTHING, Subscription
from agent.engines.whatsapp import person_of
from agent.errors import Refused, TryLater, Unauthorized, WaError
from agent.messages import outcomes
from agent.messages.reader import ENDING, LONGEST_PAGE, LOOK_AGAIN, READER, Reader
from agent.messages.record import COMMON, OWN

ONE = "/api/instance/{id}"
NEWEST = "newest"
LONGEST_CURSOR = 15
"""Digits: beyond them not every reader's numbers are exact, and no session comes so far."""
_WAIT = 15.0
"""Seconds after which a WebSocket looks again though it heard of no news."""
_EXPECTED_BACK = ("not_running", "slow", "no_lease")
"""Codes of a session whose worker is expected back."""
OCTETS = "application/octet-stream"
SAFE = (
    *("image/jpeg", "image/png", "image/gif", "image/webp", "application/pdf"),
    *("audio/ogg", "audio/mpeg", "audio/mp4", "audio/aac", "audio/amr"),
    *("video/mp4", "video/3gpp", "video/webm", "text/plain"),
)
"""Types that no browser runs as a page; any other file is only octets."""
LONGEST_NAME = 150
"""Bytes of a file's name, as file systems count."""
SLOWEST = 32 * 1024
"""Bytes a second that a reader must take of the whole, beside a minute."""
_LOAD_WAIT = 30


# Arrived messages


async def read(call: Call) -> Json:
    """Read the messages of a session, oldest first, with reactions, states of sent ones, and
    calls."""
    after, reader = cursor_of(call), call.parts.reader
    wait = float(call.query.get("wait", 0))
    limit, by = call.query.get("limit", 100), READER if wait else ""
    page = await reader.page(call.id, after, limit=limit, wait=wait, by=by)
    if call.caller.key and not call.parts.ring.knows(call.caller.key):
        raise Unauthorized("cannot accept this key: it was revoked meanwhile")
    if wait and after and after <= page.newest:
        reader.settle(READER, call.id, after)
    return msgspec.structs.asdict(page)


async def live(call: Call) -> web.StreamResponse:
    """The same over a WebSocket: one record each."""
    after, reader = cursor_of(call), call.parts.reader
    if call.request.headers.get("Upgrade", "").lower() != "websocket":
        why = f"cannot follow messages of {call.id} without a WebSocket to its own machine"
        raise Refused(f"{why}; without one ask …/messages?wait=30", code="websocket_needed")
    try:
        page = await reader.page(call.id, after, limit=1)
        after = page.next if after is None else after
    except (Refused, TryLater) as error:
        if error.code not in _EXPECTED_BACK or after is None:
            raise
    return await serve_live(call, NOTHING, partial(_write, call, reader, after))


async def _write(
    call: Call, reader: Reader, after: int, listener: web.WebSocketResponse, ends: Subscription
) -> None:
    """Write records at the listener's pace; a listener that does not read is let go."""
    while not reader.ending:
        try:
            page = await reader.page(call.id, after, limit=50, wait=_WAIT, by=READER)
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
        after = page.next
        reader.settle(READER, call.id, after)
    ends.end("the agent stops")


async def count(call: Call) -> Json:
    """How many kept records wait for who gets them, by session."""
    kept, sending = call.parts.reader.figures(), call.parts.sending
    sessions = []
    for id in sorted({*kept, *sending.senders}):
        figures = {name: kept.get(id, {}).get(name, 0) for name in ("waiting", "bytes", "lost")}
        sessions.append({"instance": id, **figures, "outbox": sending.waiting(id)})
    return {"sessions": sessions}


def cursor_of(call: Call) -> int | None:
    """Return the cursor asked for; None = behind the newest."""
    text = call.query.get("after", "0")
    return None if text == NEWEST else int(text)


# Media files


def type_of(mimetype: object) -> str:
    """Return the type if it is one of SAFE, else octets."""
    plain = mimetype.partition(";")[0].strip().lower() if isinstance(mimetype, str) else ""
    return plain if plain in SAFE else OCTETS


def file_name(filename: object, mimetype: object) -> str:
    """Return a file name without control characters; never empty, never hidden."""
    last = re.split(r"[/\\]", filename if isinstance(filename, str) else "")[-1]
    name = "".join(sign for sign in last if sign.isprintable() and sign not in '<>:"|?*')
    cut = name.encode("utf-8", "ignore")[:LONGEST_NAME].decode("utf-8", "ignore")
    return cut.strip(" .") or f"file{mimetypes.guess_extension(type_of(mimetype)) or ''}"


def disposition(name: str) -> str:
    """Return the header of RFC 6266: in ASCII for old readers, for others as it is."""
    plain = re.sub(r"[^\w .,()\[\]+=@~#-]", "_", name, flags=re.ASCII)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


async def media(call: Call) -> web.StreamResponse:
    """The file that a message brought, as an attachment; it is loaded from WhatsApp first where it
    is not kept yet."""
    chat, wait = call.query.get("chat", ""), float(call.query.get("wait", _LOAD_WAIT))
    if chat and "@" not in chat:
        chat = person_of(chat, "chat")
    message = call.request.match_info["message"]
    async with call.parts.reader.media(call.id, message, chat, wait) as (about, file):
        mimetype = about.get("mimetype")
        headers = {
            **HEADERS,
            "Content-Type": type_of(mimetype),
            "Content-Disposition": disposition(file_name(about.get("filename"), mimetype)),
            "Content-Security-Policy": "sandbox; default-src 'none'",
            "X-Media-SHA256": str(about["sha256"]),
        }
        answer = web.StreamResponse(headers=headers)
        answer.content_length = size = about["size"]
        left = size if call.request.method == "GET" else 0  # the answer to HEAD has no body
        try:
            await answer.prepare(call.request)
            async with asyncio.timeout(60.0 + size / SLOWEST):
                while piece := await asyncio.to_thread(file.read, min(left, 1 << 18)):
                    await answer.write(piece)
                    left -= len(piece)
                if left:
                    raise OSError(5, "it was cut")
                await answer.write_eof()
        except (OSError, TimeoutError) as error:
            # Half an answer is out: only the end of the connection tells the reader.
            if call.request.transport is not None:
                call.request.transport.abort()
            raise ConnectionResetError("a file was not read to its end") from error
        return answer


# Messages to send


async def list_outbox(call: Call) -> Json:
    """Messages that wait to be sent and what became of the others, newest first."""
    sending, limit = call.parts.sending, call.query.get("limit", 100)
    rows = await sending.page(call.id, **call.query)
    before = rows[-1]["id"] if len(rows) == limit else None
    return {"messages": rows, "outbox": sending.waiting(call.id), "before": before}


async def show(call: Call) -> Json:
    """One message to send, by its id or by WhatsApp's."""
    return await call.parts.sending.show(call.id, call.request.match_info["message"])


async def cancel(call: Call) -> Json:
    """Cancel a message that was not sent yet."""
    return await call.parts.sending.cancel(call.id, call.request.match_info["message"])


# The table


def _schema(required: str, **fields: tuple[Mapping[str, Any], str]) -> dict[str, Any]:
    """Return a schema: each field with its type and its meaning."""
    told = {name: {**kind, "description": meaning} for name, (kind, meaning) in fields.items()}
    return {"type": "object", "required": required.split(), "properties": told}


_INTEGER, _BOOLEAN, _KINDS = {"type": "integer"}, {"type": "boolean"}, {"enum": list(OWN)}
_FILE = f"{ONE}/messages/{{message:[^/]{{1,600}}}}/media"
# One of the outbox ("out_…") or of WhatsApp.
_SENT = f"{ONE}/outbox/{{message:[A-Za-z0-9._:@=-]{{1,200}}}}"
# fmt: off
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
    newest=(_INTEGER, "cursor of the newest one"), more=(_BOOLEAN, "there is more already"),
)
_AFTER = Field(
    "after", str, 'cursor of the last record that you have; default 0 = begin at the oldest;'
    ' "newest" = only what comes from now on',
    least=1, most=LONGEST_CURSOR, pattern=f"{NEWEST}|[0-9]{{1,{LONGEST_CURSOR}}}",
)
_READ = (
    _AFTER, Field("limit", int, "records at most, default 100", least=1, most=LONGEST_PAGE),
    Field("wait", int, "seconds to wait for the first record, default 0", most=60),
)
_MEDIA = (
    Field("chat", str, "jid or number of the chat: then the message is named by WhatsApp's id"
          " (`message_id`), not by the id of its record", least=1, most=128),
    Field("wait", int, f"seconds to wait until the file is loaded, default {_LOAD_WAIT}; then"
          " 503 `media_loading`, and the load goes on", most=60),
)
_LIST = (
    Field("state", str, "only these", choices=tuple(outcomes.State)),
    Field("before", str, "the id of the last one that was seen", least=1, most=200),
    Field("limit", int, "most messages, default 100", least=1, most=500),
)
ROUTES = (
    route(f"GET {ONE}/messages", Right.OPERATE, read, query=_READ, shows=_PAGE),
    route(f"GET {ONE}/messages/live", Right.OPERATE, live, query=(_AFTER,), answers=(101,)),
    route("GET /api/messages", Right.READ, count),
    route(f"GET {_FILE}", Right.OPERATE, media, query=_MEDIA),
    route(f"GET {ONE}/outbox", Right.OPERATE, list_outbox, query=_LIST),
    route(f"GET {_SENT}", Right.OPERATE, show),
    route(f"DELETE {_SENT}", Right.OPERATE, cancel, ()),
)
# fmt: on
