"""These handlers send events, live over a WebSocket or as a history, and show why a session fails:
the last lines of its worker, and an engine's notes and pictures of failed starts. A worker writes
these, so they are not trusted: no link is followed, sizes are bounded, and a picture is one only
by its first bytes.

Only the agent speaks on a WebSocket: a listener may leave, must read, and gets the reason of its
end. One that comes back names its last cursor and gets the later entries from the journal before
new ones, without gap or repetition."""

import asyncio
import io
import json
import re
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from agent import files
from agent.api.http.call import REVOKED, Answer, Call, Field, Json
from agent.core import model, session, setting
from agent.core.words import ID_PATTERN, InstanceId, parse_instance_id
from agent.deliver.bus import EventFilter, Subscription
from agent.errors import Forbidden, InvalidRequest, NotFound, WaError
from agent.messages.record import OWN
from agent.redaction import redact
from agent.vault.folder import SESSION, Folder, open_instance

Write = Callable[[web.WebSocketResponse, Subscription], Coroutine[Any, Any, None]]
"""Writes to a listener, which ends with it."""
HEARTBEAT = 5.0
"""Seconds between two pings of a WebSocket; the page counts on them."""
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
    """Wait until the listener leaves or sends too much."""
    now, heard = asyncio.get_running_loop().time, deque[float](maxlen=_LOUDEST)
    async for message in listener:
        if (len(heard) == _LOUDEST and now() - heard[0] < 60) or message.type is WSMsgType.ERROR:
            return
        heard.append(now())


async def _say_goodbye(
    listener: web.WebSocketResponse, transport: asyncio.Transport | None, reason: str
) -> None:
    """Close with the reason if the listener still reads; abort if it does not."""
    code = WSCloseCode.POLICY_VIOLATION if reason == REVOKED else WSCloseCode.GOING_AWAY
    if reason.startswith("too slow"):
        code = WSCloseCode.TRY_AGAIN_LATER
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(1.0):
            await listener.close(code=code, message=reason.encode()[:120], drain=False)
    # close() alone waits for a full send buffer that the listener does not read.
    if transport is not None and transport.get_write_buffer_size():
        transport.abort()


KINDS = (
    "ack action address_away address_back agent_started agent_stopped arrived backend_down"
    " backend_up canary circuit_closed circuit_open created database_older deleted deleting"
    " disabled enabled exported folder_newer imported incident incident_over kept kept_again"
    " kept_aside key_unreadable memory message moved not_kept operator outbox_dropped outcome"
    " pack_ended paired passkey_required repair repair_over repair_step repaired replaced replacing"
    " restarted restored restoring scanned_again session_circuit_closed session_circuit_open"
    " settings snapshot snapshot_failed snapshot_restored status store_repaired trouble"
    " trouble_over verdict webhook_begun webhook_dead webhook_gap webhook_gone webhook_test"
)
"""The kinds of events; "ack" and "message" go to listeners alone, and into no journal."""


def unknown_kinds(webhook: str, kinds: Iterable[str]) -> Iterator[str]:
    """Yield faults of kinds that no event and no record has: nothing of them is ever sent."""
    known = {*KINDS.split(), *OWN}
    for kind in kinds:
        if not any(fnmatchcase(it, kind) for it in known):
            advice = setting.nearest(kind, known) or f"known: {' '.join(sorted(known))}"
            yield f"cannot use {kind!r} in kinds of webhook {webhook}: no event is of it; {advice}"


HISTORY = (
    Field("limit", int, "events on a page, default 100", least=1, most=1000),
    Field("before", int, "the `next` of the previous page"),
    Field("after", int, "only events after this cursor, oldest first"),
    Field("kind", list, "only these kinds", choices=tuple(KINDS.split()), most=50),
)


async def history(call: Call) -> Json:
    """An instance's history, newest first."""
    return await read_history(call, call.id)


async def read_history(call: Call, id: InstanceId | None) -> Json:
    query = call.query
    limit, ends = query.get("limit", 100), {"before", "after"} & query.keys()
    if len(ends) > 1:
        raise InvalidRequest("cannot use before and after together", field="after")
    page = {"limit": limit, "kinds": query.get("kind", ()), **{end: query[end] for end in ends}}
    entries = await call.supervisor.history(id, **page)
    return {
        "events": [session.show_event(entry) for entry in entries],
        "next": entries[-1].cursor if len(entries) == limit else None,
    }


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


# Why it fails

LAST_LINES = 60
_TAIL = 64 << 10
_HEAD = re.compile(r"\[[^]]*\] \[[A-Z]+\] \[[A-Z]+\] \[([^]]*)\] ")
"""The beginning of a worker's line, which has the session's id."""
LINES = (Field("after", int, "the `next` of the answer before: what came since", least=0),)
DIAGNOSTICS = "diagnostics"
FAILED_START = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_NOTE = re.compile(rf"{FAILED_START.pattern}\.json")
MOST_STARTS = 20
"""Failed starts that are listed: an engine keeps a few, and further files are left out."""


async def worker_lines(call: Call) -> Json:
    """The last lines of an instance's worker.

    `lines`: null where the journal has them; then `command` shows them.
    """
    if (path := call.supervisor.seats.log_path(call.id)) is None:
        return {"lines": None, "command": f"wa-agent logs {call.id}", "next": 0, "cut": False}
    # A pack's worker writes the lines of several sessions into one file.
    only = "" if path.parent.name == call.id else call.id
    lines, next, cut = await asyncio.to_thread(read_lines, path, call.query.get("after"), only)
    return {"lines": lines, "command": f"tail -n {LAST_LINES} {path}", "next": next, "cut": cut}


async def failed_starts(call: Call) -> Json:
    """The diagnostics that an engine kept of failed starts, newest first."""
    starts = await asyncio.to_thread(list_failed_starts, call.supervisor.root, call.id)
    return {"failed_starts": starts}


async def picture(call: Call) -> web.Response:
    """The picture of a failed start."""
    name = call.request.match_info["failed"]
    content = await asyncio.to_thread(read_picture, call.supervisor.root, call.id, name)
    return web.Response(body=content, content_type="image/jpeg")


def list_failed_starts(root: Path, id: InstanceId) -> list[dict[str, Any]]:
    """Return failed starts, newest first, by the time in their files' names; empty if there are
    none."""
    found = []
    with suppress(WaError), open_instance(root, id, SESSION, DIAGNOSTICS) as folder:
        names = set(folder.names())
        for name in sorted(filter(_NOTE.fullmatch, names), reverse=True)[:MOST_STARTS]:
            stem, seen = name.removesuffix(".json"), _read_note(folder, name)
            found.append({"name": stem, "seen": seen, "picture": f"{stem}.jpg" in names})
    return found


def read_picture(root: Path, id: InstanceId, name: str) -> bytes:
    if FAILED_START.fullmatch(name):
        with suppress(WaError), open_instance(root, id, SESSION, DIAGNOSTICS) as folder:
            if (content := folder.content(f"{name}.jpg")).startswith(b"\xff\xd8\xff"):
                return content
    raise NotFound(f"cannot show the picture {name} of {id}: there is none")


def _read_note(folder: Folder, name: str) -> dict[str, Any]:
    try:
        note = json.loads(redact(folder.content(name)[: 256 << 10].decode(errors="replace")))
    except (WaError, ValueError, RecursionError):
        return {"why": f"{name} cannot be read"}
    return note if isinstance(note, dict) else {"why": f"{name} is no JSON object"}


def read_lines(path: Path, after: int | None, only: str = "") -> tuple[list[str], int, bool]:
    """Whole lines, where to go on, and whether the file is shorter than it was. `only`: the lines
    of this session."""
    try:
        with files.open_plain(path) as file:
            size = file.seek(0, io.SEEK_END)
            cut = after is not None and after > size
            begin = 0 if cut else after
            if begin is None:
                begin = max(size - _TAIL, 0)
            file.seek(begin)
            raw = file.read(_TAIL)
    except OSError:
        return [], 0, False
    # A last line without its end is still being written: the next request reads it.
    whole = raw[: raw.rfind(b"\n") + 1] or (raw if len(raw) == _TAIL else b"")
    lines = whole.decode(errors="replace").splitlines()
    lines = _of_session(only, lines) if only else lines
    shown = lines[-LAST_LINES:] if after is None else lines
    return [redact(line) for line in shown], begin + len(whole), cut


def _of_session(id: str, lines: Iterable[str]) -> list[str]:
    """Return the session's lines, each with what stands below it, as the stack of an error."""
    own, found = False, []
    for line in lines:
        if (head := _HEAD.match(line)) is not None:
            own = head[1] == id
        if own:
            found.append(line)
    return found
