"""Asks the agents of other machines: for a promise, for a request that is theirs, for events. Every
request shows the fleet's bearer: over plain HTTP to loopback and private addresses only, and not at
all where the fleet has a `ca`."""

import asyncio
import json
import logging
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from agent.clock import boot_now
from agent.core.fleet.headers import ACCEPTED_LOSS, CALLER, SCHEME
from agent.core.network.addresses import refuse_address
from agent.errors import TryLater

log = logging.getLogger(__name__)

_JSON = {"Content-Type": "application/json"}
_CONNECT = 3.0
_PROMISE = 5.0
_LONGEST_ANSWER = 900.0
"""Seconds between two parts of an answer: a repair answers at its end."""
_SHORT = 64 * 1024
"""Bytes of an answer that is read whole."""
_AWAY = 2.0
"""Seconds in which a machine that could not be reached is not tried again by a request."""
_AT_ONCE = 32
"""Forwarded requests to one machine: it serves 64 of one address, promises among them."""
_WAITING_AT_ONCE = 16
"""Of those that wait for something to happen, besides."""
_LOST_AFTER = 15
"""Seconds without an acknowledgement after which a connection to a dead machine ends."""


class Reached(Protocol):
    """Another machine."""

    @property
    def name(self) -> str: ...
    @property
    def address(self) -> str: ...


class PeerAway(TryLater):
    """A machine that could not be reached: the request was not sent."""

    code = "owner_away"


class PeerLost(TryLater):
    """The connection ended after the request was sent: it may have been carried out."""

    code = "unknown_outcome"


@dataclass(frozen=True, slots=True)
class Sent:
    """A request to another machine."""

    method: str
    path: str
    """Encoded, with its query."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterable[bytes] | None = None
    caller: Mapping[str, Any] | None = None
    """The client for whom it is sent; None: this machine asks for itself."""
    waits: bool = False
    """It is answered when something happens; meanwhile it takes no turn of other requests."""


class Peers:
    """One pool of connections to all other machines."""

    def __init__(self, bearer: str, machine: str, ca: str = "") -> None:
        self._bearer = bearer
        self.machine = machine
        self._ca = ca
        self._tls: ssl.SSLContext | None = None
        self._session: aiohttp.ClientSession | None = None
        self._away: dict[str, float] = {}
        self._turns: dict[tuple[str, int], asyncio.Semaphore] = {}

    def reload(self) -> None:
        """Read `ca` again, for connections made from now on."""
        if self._tls is not None and self._ca:
            try:
                self._tls.load_verify_locations(self._ca)
            except OSError as error:  # as every error of TLS is
                log.error("cannot read [fleet] ca, %s: %s; the old one is used", self._ca, error)

    async def ask_promise(self, row: Reached, id: int, epoch: int, accepted: str = "") -> bool:
        """Whether the machine promises not to take over this one for a ttl."""
        asked = {"machine": id, "epoch": epoch, "to": row.name}
        status, answer = await self._ask_promise(row, asked, accepted)
        return status == 200 and answer.get("promised") is True

    async def rehearse_promise(self, row: Reached, id: int, epoch: int, accepted: str = "") -> str:
        """Why the machine would not promise it now; "" = it would."""
        asked = {"machine": id, "epoch": epoch, "to": row.name, "rehearsal": True}
        status, answer = await self._ask_promise(row, asked, accepted)
        if status == 200 and answer.get("promised") is not True:
            return "it answers, and would not promise"
        # A program of before knows no rehearsal; that it refuses the word says that it is reached.
        older = status == 400 and "rehearsal" in str(answer)
        return "" if status == 200 or older else f"it answers with {status}"

    async def _ask_promise(
        self, row: Reached, asked: Mapping[str, Any], accepted: str
    ) -> tuple[int, Mapping[str, Any]]:
        headers = {**_JSON, ACCEPTED_LOSS: accepted} if accepted else _JSON
        sent = Sent("POST", "/api/fleet/promise", headers, json.dumps(asked).encode())
        async with asyncio.timeout(_PROMISE):
            try:
                return await self.ask(row, sent)
            except PeerLost:  # it closed an idle connection; asking twice does no harm
                return await self.ask(row, sent)

    async def ask(self, row: Reached, sent: "Sent") -> tuple[int, Mapping[str, Any]]:
        """A short answer in JSON, whole."""
        async with self.forward(row, sent) as answer:
            try:
                raw = await answer.content.read(_SHORT)
            except (aiohttp.ClientError, OSError) as error:
                raise lost(row, error) from error
            try:
                content = json.loads(raw)
            except ValueError:
                content = None
            return answer.status, content if isinstance(content, dict) else {}

    @asynccontextmanager
    async def forward(self, row: Reached, sent: "Sent") -> AsyncIterator[aiohttp.ClientResponse]:
        """The machine's answer, its body not yet read."""
        url = self._url(row, sent.path)
        if boot_now() < self._away.get(row.address, 0.0):
            raise _away(row, "it could not be reached a moment ago")
        most = _WAITING_AT_ONCE if sent.waits else _AT_ONCE
        turns = self._turns.setdefault((row.address, most), asyncio.Semaphore(most))
        if sent.caller is None:  # a promise: sessions depend on it
            turns = asyncio.Semaphore(1)
        elif turns.locked():
            raise TryLater(
                f"cannot ask machine {row.name}: {most} requests to it are under way",
                code="busy",
            )
        async with turns:
            answer = await self._request(row, url, sent)
            try:
                yield answer
            finally:
                answer.close()  # one that was read to its end gave its connection back

    async def _request(self, row: Reached, url: URL, sent: "Sent") -> aiohttp.ClientResponse:
        try:
            return await self._open().request(
                sent.method,
                url,
                headers={**sent.headers, **self._credentials(sent.caller)},
                data=sent.body,
                allow_redirects=False,
            )
        except (
            aiohttp.ClientConnectorError,
            aiohttp.ConnectionTimeoutError,
            aiohttp.InvalidURL,
        ) as error:
            self._away[row.address] = boot_now() + _AWAY
            raise _away(row, _cause(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise lost(row, error) from error

    @asynccontextmanager
    async def listen(
        self, row: Reached, path: str, caller: Mapping[str, Any], *, heartbeat: float
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket to the machine; every failure of it is a PeerAway."""
        url = self._url(row, path)
        try:
            async with self._open().ws_connect(
                url,
                headers=self._credentials(caller),
                heartbeat=heartbeat,
                max_msg_size=1 << 20,
                timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
            ) as socket:
                yield socket
        except (aiohttp.ClientError, OSError) as error:
            raise _away(row, _cause(error)) from error

    async def reachable(self, rows: Iterable[Reached]) -> Mapping[str, bool]:
        """By name, whether a machine answers at its address now."""

        async def answers(row: Reached) -> bool:
            try:
                async with asyncio.timeout(_CONNECT):
                    status, _ = await self.ask(row, Sent("GET", "/healthz"))
            except (TryLater, TimeoutError):
                return False
            return status in (200, 503)

        asked = list(rows)
        answered = await asyncio.gather(*map(answers, asked))
        return {row.name: yes for row, yes in zip(asked, answered, strict=True)}

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _credentials(self, caller: Mapping[str, Any] | None) -> dict[str, str]:
        shown = {"Authorization": f"{SCHEME} {self._bearer}"}
        if caller is not None:
            shown[CALLER] = json.dumps({**caller, "through": self.machine}, separators=(",", ":"))
        return shown

    def _url(self, row: Reached, path: str) -> URL:
        if why := refuse_peer(row.address, tls=bool(self._ca)):
            raise _away(row, f"its address {row.address} is refused: {why}")
        try:
            self._open()
        except OSError as error:
            raise _away(row, f"[fleet] ca, {self._ca}, cannot be used: {error}") from error
        return URL(row.address.rstrip("/") + path, encoded=True)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Without `ca` the library's own context serves: another one takes 0.8 MiB.
            self._tls = ssl.create_default_context(cafile=self._ca) if self._ca else None
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, ssl=self._tls or True, keepalive_timeout=15.0, socket_factory=_socket
                ),
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=_CONNECT, sock_read=_LONGEST_ANSWER
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent", "Accept-Encoding", "Content-Type"),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


def _socket(place: Any) -> socket.socket:
    """A connection to a machine that lost its power ends by itself."""
    made = socket.socket(*place[:3])
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 5)):
        made.setsockopt(socket.IPPROTO_TCP, option, seconds)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _LOST_AFTER * 1000)
    return made


def lost(row: Reached, error: BaseException) -> PeerLost:
    return PeerLost(
        f"cannot tell what became of the request: machine {row.name} did not answer it whole"
        f" ({_cause(error)})"
    )


def _away(row: Reached, cause: str) -> PeerAway:
    return PeerAway(f"cannot reach machine {row.name}: {cause}")


def _cause(error: BaseException) -> str:
    """Without the request: its headers hold the bearer."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not accepted ({error.certificate_error})"[:200]
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or type(error.os_error).__name__
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return type(error).__name__


def refuse_peer(address: str, *, tls: bool) -> str:
    """Why the bearer is not sent to an address; "" = it is."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "it is no http:// or https:// address"
    if not host or parts.username is not None or parts.scheme not in ("http", "https"):
        return "it is no http:// or https:// address"
    if parts.scheme == "https":
        return ""
    if tls:
        return "this fleet has a ca, and the address is plain http://"
    usable = not refuse_address(host, private=True)
    near = host == "localhost" or (usable and refuse_address(host, private=False))
    return "" if near else "plain http:// is for loopback and private addresses"
