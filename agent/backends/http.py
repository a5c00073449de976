"""Requests to a server of another program: each has one deadline, a bounded answer and a connection
of its own.

No redirect is followed, nothing is sent twice, and no proxy of the environment is used. Errors
hold no key, no query and no body: bodies may have QR texts.
"""

import asyncio
import json
import os
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from agent.config.config import BackendDeclaration
from agent.engines.base import object_of
from agent.errors import ConfigError, EngineError, InvalidRequest
from agent.files import plain_path

CONNECT = 3.0
"""Seconds until the server must have taken a connection."""
LARGEST = 8 << 20
"""Bytes of an answer; aiohttp unpacks a compressed one in small pieces."""
MOST_VALUES = 300_000
"""JSON values of an answer: 8 MiB of `[]` would take 200 MB as Python objects."""


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file; {} if the file is not there, or is damaged."""
    with suppress(OSError):
        return object_of(path.read_bytes())
    return {}


class ServerDown(EngineError):
    """The server gave no usable answer, which proves nothing about a session."""

    code = "backend_down"

    def __init__(self, what: str, reason: str, cause: str, *, reached: bool = True) -> None:
        """`reason`: a code of ServerClaim, or "oversized". `reached`: False if the request surely
        did not get to the server."""
        super().__init__(f"cannot {what}: {cause}")
        self.reason, self.cause, self.reached = reason, cause, reached


def cannot(what: str, cause: str, code: str) -> EngineError:
    return EngineError(f"cannot {what}: {cause}", code=code)


@contextmanager
def naming(what: str, code: str = "files") -> Iterator[None]:
    """Turn an OSError into an error that names what was tried."""
    try:
        yield
    except OSError as error:
        raise cannot(what, (error.strerror or type(error).__name__).lower(), code) from error


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer. `body` is None if there was none, or if a refusal was not JSON."""

    status: int
    body: Any = field(repr=False)
    seconds: float

    @property
    def good(self) -> bool:
        return self.status < 400

    @property
    def refusal(self) -> str:
        """Status and whaticket's own code of the error; all other words may repeat the request."""
        error = self.body.get("error") if isinstance(self.body, Mapping) else None
        code = re.match(r"ERR_[A-Z_]{1,60}\Z", error) if isinstance(error, str) else None
        return f"{self.status} {code[0]}" if code else str(self.status)


class Http:
    """One server's requests. Made inside a running loop; `close` ends it."""

    def __init__(self, declared: BackendDeclaration, headers: Mapping[str, str]) -> None:
        """Make the client. `headers` go with each request and may hold the key."""
        self.declared = declared
        self._turns = asyncio.Semaphore(declared.parallel)
        self._session = aiohttp.ClientSession(
            # A connection that is kept may be one that the server just closes.
            connector=aiohttp.TCPConnector(limit=0, ssl=_tls(declared), force_close=True),
            middlewares=[_send_once],
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT),
            headers={"Accept": "application/json", "Accept-Encoding": "identity", **headers},
            trust_env=False,
        )
        self.close = self._session.close

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        token: str = "",
        timeout: float | None = None,
        urgent: bool = False,
    ) -> Answer:
        """One request; ServerDown if no usable answer comes in time. A refusal (4xx), and a 5xx
        with JSON, is an answer. `urgent`: it takes no turn, for it tells whether the server lives.
        """
        what, limit = f"{method} {path}", timeout or self.declared.timeout
        if self._session.closed:  # under an action that goes on: the key in its file changed
            raise ServerDown(what, "unreachable", "its watch begins again", reached=False)
        begun, sent = time.monotonic(), False
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        asked = f"{path}?{urlencode(query)}" if query else path
        url = URL(self.declared.url + asked, encoded=True)
        try:
            async with asyncio.timeout(limit), nullcontext() if urgent else self._turns:
                begun, sent = time.monotonic(), True
                async with self._session.request(
                    method, url, json=body, headers=headers, allow_redirects=False
                ) as reply:
                    raw = await _bounded(reply, what)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if type(error) is TimeoutError:
                words = "answer" if sent else "turn"
                reason, cause = "timeout", f"no {words} within {round(limit, 1):g} s"
            else:
                reason, cause = _classified(error)
                sent = not isinstance(error, _NOT_REACHED)
            raise ServerDown(what, reason, cause, reached=sent) from error
        content = await asyncio.to_thread(_read, what, reply.status, raw)
        return Answer(reply.status, content, time.monotonic() - begun)


def segment(name: str) -> str:
    """Return a name quoted as one part of a path."""
    if name in ("", ".", ".."):  # each client resolves these
        raise InvalidRequest(f"cannot use {name!r} as a name on a server", field="remote")
    return quote(name, safe="")


def _tls(declared: BackendDeclaration) -> ssl.SSLContext | bool:
    """Return the TLS context: it trusts a `ca_file` instead of the machine's list."""
    if not declared.url.startswith("https:"):
        return True
    try:
        context = ssl.create_default_context(cafile=plain_path(declared.ca_file))
    except OSError as error:
        cause = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        words = f"cannot use backend setting 'ca_file': {cause}"
        raise ConfigError(words, field="ca_file") from error
    if not declared.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def _send_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Send a request once: aiohttp by itself would send a GET connect or a DELETE again."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientPayloadError from error


async def _bounded(reply: aiohttp.ClientResponse, what: str) -> bytes:
    raw = bytearray()
    async for chunk in reply.content.iter_any():
        raw += chunk
        if len(raw) > LARGEST:
            raise ServerDown(what, "oversized", f"its answer is larger than {LARGEST >> 20} MiB")
    return bytes(raw)


def _read(what: str, status: int, raw: bytes) -> Any:
    if 300 <= status < 400:
        raise ServerDown(what, "not_found", f"it sends on to another address ({status})")
    try:
        if sum(map(raw.count, (b",", b"[", b"{"))) > MOST_VALUES:
            raise ServerDown(what, "oversized", f"its answer has more than {MOST_VALUES:,} values")
        return json.loads(raw) if raw else None
    except (ValueError, RecursionError):
        if status >= 500:
            raise ServerDown(what, "failing", f"it answers {status}") from None
        if status < 400:
            raise ServerDown(what, "garbage", "its answer is not JSON") from None
        return None


_NOT_REACHED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_CAUSES = (
    (aiohttp.ConnectionTimeoutError, "unreachable", f"no connection within {CONNECT:g} s"),
    (aiohttp.ClientSSLError, "tls", "no TLS with it"),
    (aiohttp.ClientConnectorDNSError, "unreachable", "its name is not known"),
    (aiohttp.ClientPayloadError, "unreachable", "the connection ended before its answer did"),
    (aiohttp.ClientResponseError, "garbage", "its answer is not HTTP"),
    (ValueError, "garbage", "its answer cannot be read"),
)


def _classified(error: Exception) -> tuple[str, str]:
    """Return a code and a cause for people; the error's own text may show too much."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = getattr(error.certificate_error, "verify_message", "") or "it cannot be verified"
        return "tls", f"its certificate is refused: {why}"
    for kind, reason, cause in _CAUSES:
        if isinstance(error, kind):
            return reason, cause
    number = getattr(error, "errno", None)
    return "unreachable", os.strerror(number).lower() if number else "no connection"
