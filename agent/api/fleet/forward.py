"""Forwards a request to the machine that owns its session: body and answer as they come."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
from aiohttp import web

from agent.api.http.auth import Caller
from agent.api.http.body import TooSlow
from agent.api.http.call import Call
from agent.api.http.fleet_gate import show_caller
from agent.config.sections import ApiSection
from agent.core.fleet.headers import MACHINE
from agent.core.invitation_line import HEADER as INVITE
from agent.errors import TooLarge, TryLater, WaError
from agent.fleet.coordinator import MachineRow
from agent.fleet.peers import Peers, Sent, lost

_SENT = (
    *("Accept", "Accept-Encoding", "Content-Type", "Content-Encoding", "Content-Length"),
    *("Idempotency-Key", INVITE),
)
"""What an owner gets of a client's headers. Neither a client's key nor its cookies."""
_KEPT_BACK = frozenset(
    {
        *("connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer"),
        *("proxy-authenticate", "date", "server", "content-length", "set-cookie"),
    }
)
"""What a client does not get of an owner's headers: they are about this connection."""
_SHORT = 256 * 1024
"""Bytes of a body that are held, so that it can be sent a second time."""
_PIECE = 1 << 16
_READER_SECONDS = 60.0


class NotOwner(Exception):
    """The machine does not run the session."""


class Forwarding:
    """One request; its body is read once."""

    def __init__(
        self,
        request: web.Request,
        section: ApiSection,
        *,
        whole: bool = False,
        waits: bool = False,
    ) -> None:
        """`whole`: the body may have any length, as an archive; `waits`: it is answered when
        something happens."""
        most = section.media_limit * 4 // 3 + section.body_limit
        if not whole and (request.content_length or 0) > most:
            raise TooLarge(f"cannot read the body: it may have at most {most} bytes")
        self._request = request
        self._waits = waits
        self._seconds = section.body_timeout
        self._held: bytes | None = None
        self._failed: WaError | None = None
        self.answering = False
        """The machine has begun to answer."""
        self.sent = False
        """A body that cannot be sent again is on its way."""

    async def to(self, owner: MachineRow, peers: Peers, caller: Caller) -> web.StreamResponse:
        request = self._request
        headers = {name: request.headers[name] for name in _SENT if name in request.headers}
        path, body = request.rel_url.raw_path_qs, await self._body()
        if isinstance(body, bytes):
            headers.pop("Content-Length", None)
        try:
            shown = show_caller(caller)
            sent = Sent(request.method, path, headers, body, shown, waits=self._waits)
            async with peers.forward(owner, sent) as reply:
                self.answering = True
                return await answer_of(self._request, owner, reply)
        except TryLater:
            if self._failed is not None:
                raise self._failed from None
            raise

    @property
    def read(self) -> bool:
        """The request's body can be read once only."""
        return self.sent or self._held is not None

    async def body(self) -> bytes:
        """Of a short request, also after it was forwarded in vain."""
        body = await self._body()
        if body is not None and not isinstance(body, bytes):
            raise TooLarge(f"cannot keep the body: it may have at most {_SHORT} bytes")
        return body or b""

    async def _body(self) -> bytes | AsyncIterator[bytes] | None:
        request = self._request
        if self._held is None and request.can_read_body:
            if (request.content_length or _SHORT + 1) > _SHORT:
                self.sent = True
                return self._pieces()
            self._held = b"".join([piece async for piece in self._pieces()])
            if self._failed is not None:
                raise self._failed
        return self._held

    async def _pieces(self) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(self._seconds):
                    piece = await self._request.content.readany()
            except TimeoutError as error:
                self._failed = TooSlow(
                    f"cannot forward the body: nothing came for {self._seconds:g} seconds"
                )
                raise self._failed from error
            if not piece:
                return
            yield piece


async def send_json(
    peers: Peers, row: MachineRow, call: Call, body: Mapping[str, Any]
) -> web.StreamResponse:
    """A request whose body was read here already."""
    headers = {"Content-Type": "application/json"}
    raw, path = json.dumps(body).encode(), call.request.rel_url.raw_path_qs
    sent = Sent(call.request.method, path, headers, raw, show_caller(call.caller))
    async with peers.forward(row, sent) as reply:
        return await answer_of(call.request, row, reply)


async def answer_of(
    request: web.Request, owner: MachineRow, reply: aiohttp.ClientResponse
) -> web.StreamResponse:
    headers = _headers(reply)
    headers[MACHINE] = owner.name
    size = reply.content_length
    if size is None or size > _SHORT:
        return await _stream(request, reply, headers)
    try:
        raw = await reply.read()
    except (aiohttp.ClientError, OSError) as error:
        raise lost(owner, error) from error
    if reply.status in (401, 403, 503):
        _check_refusal(owner, raw)
    return web.Response(body=raw, status=reply.status, headers=headers)


async def _stream(
    request: web.Request, reply: aiohttp.ClientResponse, headers: Mapping[str, str]
) -> web.StreamResponse:
    answer = web.StreamResponse(status=reply.status, headers=headers)
    if reply.content_length is not None:
        answer.content_length = reply.content_length
    await answer.prepare(request)
    try:
        async for piece in reply.content.iter_chunked(_PIECE):
            async with asyncio.timeout(_READER_SECONDS):
                await answer.write(piece)
        await answer.write_eof()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        # Half an answer is out: only the end of the connection tells the client.
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the answer of another machine ended early") from error
    return answer


def _headers(reply: aiohttp.ClientResponse) -> dict[str, str]:
    return {name: text for name, text in reply.headers.items() if name.lower() not in _KEPT_BACK}


def _check_refusal(owner: MachineRow, raw: bytes) -> None:
    """What the machine says of this one, and not of its client."""
    try:
        code = json.loads(raw)["error"]
    except (ValueError, TypeError, KeyError):
        return
    if code == "not_owner":
        raise NotOwner
    if code in ("fleet_bearer", "fleet_only"):
        raise TryLater(
            f"cannot ask machine {owner.name}: it does not accept this machine's fleet key",
            code="fleet_key",
        )
