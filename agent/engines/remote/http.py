"""Requests to a backend's server by aiohttp, each with a deadline and a bounded answer. RemoteHttp
never retries, follows no redirect and uses no proxy or password file of the environment. Its errors
have no key, query or body: bodies may have QR texts and messages.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from agent.engines.remote.answers import (
    LARGEST_BODY,
    Answer,
    ServerDown,
    read_answer,
    silent_for,
    texts_of,
)
from agent.engines.remote.declaration import BackendDeclaration
from agent.engines.remote.tls import tls_of

CONNECT = 3.0
"""Seconds until the server must have taken a connection."""
_IDLE = 4.0
"""Node closes a connection that is idle for 5 s; a POST into one that just closes is lost."""


class RemoteHttp:
    """One server's connections. Made inside a running loop; `close` ends them."""

    def __init__(self, server: BackendDeclaration, headers: Mapping[str, str]) -> None:
        """`headers` go with each request and may hold the key."""
        self._server = server
        self._headers = tuple(headers.values())
        self._turns = asyncio.Semaphore(server.parallel)
        self._session = _session(server, headers, keepalive_timeout=_IDLE)
        self._once = _session(server, headers, force_close=True)

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
        """One request; ServerDown where no usable answer comes in time.

        A refusal (4xx) and a 5xx with a JSON body are answers. `path` is ready for the wire
        (`segment` quotes its parts). `urgent` takes no turn: the server's own check must get
        through. `alone`: over a connection of its own, for what must neither be lost nor be sent
        twice: a server may close a kept one just as the request leaves.
        """
        what = f"{method} {path}"
        begun, started = time.monotonic(), False
        try:
            async with asyncio.timeout(timeout or self._server.timeout):
                async with nullcontext() if urgent else self._turns:
                    begun, started = time.monotonic(), True
                    status, raw, encoding = await self._exchange(
                        self._once if alone else self._session, method, path, body, query, headers
                    )
        except aiohttp.ConnectionTimeoutError as error:
            cause = f"no connection within {CONNECT:g} s"
            raise ServerDown(what, "unreachable", cause, reached=False) from error
        except TimeoutError as error:
            limit = timeout or self._server.timeout
            cause = silent_for(limit) if started else f"no turn within {round(limit, 1):g} s"
            raise ServerDown(what, "timeout", cause, reached=started) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason, cause = _classified(error)
            reached = not isinstance(error, aiohttp.ClientConnectorError)
            raise ServerDown(what, reason, cause, reached=reached) from error
        ours = (*self._headers, *texts_of([body, dict(headers or {})]))
        content = read_answer(what, status, raw, encoding)
        return Answer(status, content, time.monotonic() - begun, ours)

    async def close(self) -> None:
        await self._session.close()
        await self._once.close()

    async def _exchange(  # noqa: PLR0917 - the parts of one request
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        body: Any,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
    ) -> tuple[int, bytes, str]:
        url = self._server.url + path + ("?" + urlencode(query) if query else "")
        async with session.request(
            method,
            URL(url, encoded=True),
            json=body,
            headers=headers,
            allow_redirects=False,
        ) as reply:
            encoding = reply.headers.get("Content-Encoding", "")
            return reply.status, await _bounded(reply), encoding


def _session(
    server: BackendDeclaration, headers: Mapping[str, str], **keeping: Any
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=tls_of(server), **keeping),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT),
        headers={"Accept": "application/json", "Accept-Encoding": "identity", **headers},
        auto_decompress=False,
        trust_env=False,
    )


async def _bounded(reply: aiohttp.ClientResponse) -> bytes:
    raw = bytearray()
    async for chunk in reply.content.iter_any():
        raw += chunk
        if len(raw) > LARGEST_BODY:
            raise ValueError("the answer is larger than 8 MiB")
    return bytes(raw)


def _classified(error: Exception) -> tuple[str, str]:
    """ServerClaim's reason and a cause for people; the error's own text may show too much."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            why = getattr(error.certificate_error, "verify_message", "") or "it cannot be verified"
            return "tls", f"its certificate is refused: {why}"
        case aiohttp.ClientSSLError():
            return "tls", "no TLS with it"
        case aiohttp.ClientConnectorDNSError():
            return "unreachable", "its name is not known"
        case aiohttp.ServerDisconnectedError():
            return "unreachable", "it closed the connection without an answer"
        case aiohttp.ClientPayloadError():
            return "unreachable", "its answer broke off"
        case aiohttp.ClientResponseError():
            return "garbage", "its answer is not HTTP"
        case OSError():
            return "unreachable", error.strerror or "no connection"
        case aiohttp.ClientError():
            return "unreachable", type(error).__name__
        case _:
            return "garbage", "the answer cannot be read"
