"""Forward: a request about a session of another machine goes to that machine, and its answer comes
back, whichever machine a client asks.

One hop and one try: what was not answered may have been done. The owner gets the caller's name and
right, as its key has them here, and never the key. A list has the sessions of all machines.
"""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
from aiohttp import web

from agent.api.http.auth import CALLER, REQUEST_ID, VIA, Caller, Right
from agent.api.http.call import invite
from agent.api.present import json_answer, show_instance
from agent.core.model import Instance, InstanceId, SessionRecord
from agent.core.session import Session
from agent.errors import InvalidRequest, TryLater, WaError
from agent.fleet.peers import CONNECTS, OWNER, Rows
from agent.fleet.shown import explain

if TYPE_CHECKING:
    from agent.fleet.joined import Joined

Asked = tuple[str, Right, bool, int]
"""The caller's name, its right, True if its key is for the session; and the epoch of the session's
record, as the machine that was asked knows it."""
HEADER, ONE = "X-Asked", "/api/instance"
_SENT = ("Accept", "Content-Type", "Content-Encoding", "Content-Length", "Idempotency-Key")
"""Headers of a client that its session's owner gets."""
_KEPT_BACK = {"connection", "keep-alive", "transfer-encoding"}
"""Headers of an owner that a client does not get: they are about another connection."""
_LOOK_EVERY = 1.0
"""Seconds between two looks if the client is still there, and the owner not lost; and in which
another machine must list its sessions."""
TIMES = aiohttp.ClientTimeout(total=None, sock_connect=CONNECTS, sock_read=330.0)
"""Seconds: more than the longest `?wait=`."""


async def forward(fleet: "Joined", id: str, request: web.Request) -> web.StreamResponse | None:
    """Return the owner's answer; None: this machine owns it, or the fleet has no such session."""
    if _drops(fleet, id, request):
        await fleet.drop(id)
        if id not in fleet.here():
            return json_answer({"id": id, "trash": ""}, 200)
    if VIA not in request and id and id not in fleet.here() and not fleet.elsewhere(id):
        await fleet.find(id)
    there, caller = fleet.elsewhere(id), request[CALLER]
    if VIA in request or not there or (fleet.copies is None and id in fleet.here()):
        reads, messages = request.method in ("GET", "HEAD"), "/messages" in request.path
        if not (reads or messages) and (not id or id in fleet.here()):
            await fleet.be_sure("take an order", id, deletes=request.method == "DELETE")
        # An older folder would take a reader's cursor back.
        old = not fleet.is_sure_of(id) or id in fleet.view.sessions.keys() - fleet.engines().keys()
        if messages and id in fleet.here() and (old if reads else fleet.in_doubt):
            raise TryLater(
                f"cannot read or send now: {fleet.why(id) or 'wait'}", code="owner_changed"
            )
        return None
    if request.path.endswith("/live"):
        raise TryLater(f"cannot follow {id} here: {fleet.why(id)}", code="owner_changed")
    copies = fleet.part(f"ask machine {there}")[1]
    headers = {name: _plain(request.headers[name]) for name in _SENT if name in request.headers}
    epoch = fleet.view.sessions[id].record.epoch
    asked: Asked = caller.name, caller.level, id in caller.instances, epoch
    headers |= {HEADER: msgspec.json.encode(asked).decode(), "Host": OWNER}
    headers["X-Request-Id"] = request[REQUEST_ID]
    body = request.content if request.can_read_body else None
    to = copies.address(there), there, request.method, request.rel_url.raw_path_qs
    # A machine that is frozen takes a request and says nothing: here nothing was sent yet.
    await copies.peers.send(*to[:2], ())
    await invite(request)
    asking = asyncio.create_task(copies.peers.ask(*to, TIMES, headers=headers, data=body))
    try:
        while not (await asyncio.wait({asking}, timeout=_LOOK_EVERY))[0]:
            if request.transport is None:
                raise ConnectionResetError("the client is gone")
            copies.address(there)
        reply = asking.result()
    except TryLater as error:
        code = error.code if request.method in ("GET", "HEAD") else "unsure"
        raise TryLater(f"{error}; what became of it there is not known", code=code) from error
    finally:
        asking.cancel()
    async with reply:
        theirs = {name: it for name, it in reply.headers.items() if name.lower() not in _KEPT_BACK}
        answer = web.StreamResponse(status=reply.status, headers=theirs)
        await answer.prepare(request)
        try:
            async for piece in reply.content.iter_chunked(1 << 16):
                await answer.write(piece)
            await answer.write_eof()
        except (aiohttp.ClientError, OSError) as error:
            if request.transport is not None:  # half an answer is out: only its end tells that
                request.transport.abort()
            raise ConnectionResetError("an answer was not forwarded to its end") from error
    return answer


def _drops(fleet: "Joined", id: str, asked: web.Request) -> bool:
    """True for the deletion of a session whose files do not come, or whose machine is forgotten."""
    owner = fleet.view.machines.get(fleet.elsewhere(id))
    gone = bool(fleet.unsettled.get(id)) or (owner is not None and owner.record.forgotten)
    return gone and asked.method + asked.path == f"DELETE{ONE}/{id}"


def _plain(text: str) -> str:
    """Return text as the API reads a key that is no UTF-8."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


async def enter(fleet: "Joined", request: web.Request) -> Caller:
    """Return the caller of a request that another machine forwards to this one."""
    request[VIA] = "another machine"  # a refusal is written down, too
    peer, id = fleet.part("answer")[1].peers.asks(request), request.match_info.get("id")
    request[VIA] = f"machine {peer}"
    if id is None:
        raise web.HTTPNotFound
    try:
        caller, right, own, epoch = msgspec.json.decode(request.headers.get(HEADER, ""), type=Asked)
    except ValueError:
        raise InvalidRequest(f"cannot read {HEADER}", field=HEADER) from None
    if peer not in fleet.view.machines:
        raise TryLater(f"machine {fleet.name} does not know machine {peer}", code="unknown_machine")
    record = fleet.view.owned(fleet.name).get(id)
    knows = record and (fleet.settled(id, record) or _drops(fleet, id, request))
    if not (record and knows and record.epoch == epoch):
        words = f"cannot find {id} on machine {fleet.name}: it changes its machine; try again"
        raise TryLater(words, code="owner_changed")
    if request.method not in ("GET", "HEAD"):  # one that waited while this machine was frozen
        await fleet.be_sure("take an order", id, deletes=request.method == "DELETE")
    return Caller(caller, right, frozenset({InstanceId(id)} if own else ()))


async def others(fleet: "Joined") -> Rows:
    """Return sessions of other machines, as these show them; else what their records say."""
    ids = [id for id in fleet.view.sessions if fleet.elsewhere(id)]
    lists = (_list(fleet, name) for name in {*map(fleet.elsewhere, ids)})
    rows = {id: row for listed in await asyncio.gather(*lists) for id, row in listed.items()}
    return {id: rows.get(id) or _row(fleet, id) for id in ids}


async def _list(fleet: "Joined", name: str) -> Rows:
    with suppress(WaError, TimeoutError):
        async with asyncio.timeout(_LOOK_EVERY):
            copies = fleet.part("list")[1]
            return await copies.peers.get(copies.address(name), name, "/sessions", Rows)
    return {}


def _row(fleet: "Joined", id: str) -> dict[str, Any]:
    record = fleet.view.sessions[id].record
    row = show_instance(Session(Instance(InstanceId(id), record.engine, True, {}), SessionRecord()))
    why = f"{record.machine} says nothing of it now: {explain(fleet.view, id)}"
    return {**row, "machine": record.machine, "sentence": why}


def own(fleet: "Joined") -> Rows:
    """Return the sessions of this machine."""
    here, me = fleet.here(), fleet.name
    rows = [show_instance(view) for id, view in fleet.views().items() if id in here]
    return {it["id"]: it | {"machine": me, "sentence": f"on {me}: {it['sentence']}"} for it in rows}
