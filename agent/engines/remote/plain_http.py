"""Requests to a backend's server by the standard library, for `repair_once`, which runs without
aiohttp. No redirect is followed, no proxy of the environment used, no key or body is in an error.
"""

import asyncio
import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from agent.engines.remote.answers import LARGEST_BODY, Answer, ServerDown, read_answer, silent_for
from agent.engines.remote.declaration import BackendDeclaration
from agent.engines.remote.tls import tls_of

_CHUNK = 64 << 10
_GRACE = 1.0


@dataclass(frozen=True, slots=True)
class PlainHttp:
    server: BackendDeclaration

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        urgent: bool = False,
        alone: bool = False,
    ) -> Answer:
        """One request, over a connection of its own; ServerDown when no usable answer comes in
        time."""
        what, limit = f"{method} {path}", timeout or self.server.timeout
        begun = time.monotonic()
        path = path + ("?" + urlencode(query) if query else "")
        try:
            async with asyncio.timeout(limit + _GRACE):
                status, raw, encoding = await asyncio.to_thread(
                    self._exchange, method, path, body, headers or {}, begun + limit
                )
        except TimeoutError as error:
            raise ServerDown(what, "timeout", silent_for(limit)) from error
        except _NotReached as error:
            reason, cause = _classified(error.cause)
            raise ServerDown(what, reason, cause, reached=False) from error.cause
        except (http.client.HTTPException, OSError, ValueError) as error:
            reason, cause = _classified(error)
            raise ServerDown(what, reason, cause) from error
        content = read_answer(what, status, raw, encoding)
        return Answer(status, content, time.monotonic() - begun)

    async def close(self) -> None: ...

    def _exchange(
        self, method: str, path: str, body: Any, headers: Mapping[str, str], deadline: float
    ) -> tuple[int, bytes, str]:
        parts = urlsplit(self.server.url)
        left = max(deadline - time.monotonic(), 0.05)
        connection = _connection(self.server, parts.hostname or "", parts.port, left)
        try:
            try:
                connection.connect()
            except TimeoutError:
                raise
            except OSError as error:
                raise _NotReached(error) from error
            raw = None if body is None else json.dumps(body).encode()
            sent = {"Accept": "application/json", "Accept-Encoding": "identity", **headers}
            if raw is not None:
                sent["Content-Type"] = "application/json"
            connection.request(method, parts.path + path, raw, {**sent, "Connection": "close"})
            reply = connection.getresponse()
            encoding = reply.headers.get("Content-Encoding", "")
            return reply.status, _bounded(reply, deadline), encoding
        finally:
            connection.close()


class _NotReached(Exception):
    """No connection: the request surely never got to the server."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _connection(
    server: BackendDeclaration, host: str, port: int | None, timeout: float
) -> http.client.HTTPConnection:
    tls = tls_of(server)
    if isinstance(tls, ssl.SSLContext):
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=tls)
    return http.client.HTTPConnection(host, port, timeout=timeout)


def _bounded(reply: http.client.HTTPResponse, deadline: float) -> bytes:
    content = bytearray()
    while chunk := reply.read1(_CHUNK):
        content += chunk
        if len(content) > LARGEST_BODY:
            raise ValueError("the answer is larger than 8 MiB")
        if time.monotonic() > deadline:
            raise TimeoutError
    if reply.length:
        raise http.client.IncompleteRead(b"", reply.length)
    return bytes(content)


def _classified(error: Exception) -> tuple[str, str]:
    """ServerClaim's reason and a cause for people; the error's own text may show too much."""
    match error:
        case ssl.SSLCertVerificationError():
            why = error.verify_message or "it cannot be verified"
            return "tls", f"its certificate is refused: {why}"
        case ssl.SSLError():
            return "tls", "no TLS with it"
        case socket.gaierror():
            return "unreachable", "its name is not known"
        case http.client.RemoteDisconnected():
            return "unreachable", "it closed the connection without an answer"
        case http.client.IncompleteRead():
            return "unreachable", "its answer broke off"
        case http.client.HTTPException():
            return "garbage", "its answer is not HTTP"
        case OSError():
            return "unreachable", error.strerror or "no connection"
        case _:
            return "garbage", "the answer cannot be read"
