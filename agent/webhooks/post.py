"""One POST to a webhook: signed, bounded, and only to an address that it may lead to. What is
posted, and what the answer means. No error has the URL, the secret or the event.

An address is judged when the socket is made: a name may change its address, and an address has many
spellings.
"""

import asyncio
import contextlib
import hashlib
import hmac
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
import msgspec
from aiohttp.client_proto import ResponseHandler

from agent import VERSION
from agent.core.addresses import refuse_address
from agent.core.model import InstanceId, JournalEntry
from agent.core.session import show_event
from agent.errors import ConfigError
from agent.supervise.reach import Resolver, cause_of
from agent.webhooks.settings import WebhookDeclaration, secret_of

LONGEST_RETRY_AFTER = 3600.0
"""A target may ask for a wait of so many seconds at most."""
POSTS = 8
"""Under way at once, to one target."""
_KEPT_OPEN = 3.0
"""Seconds without use after which a connection is closed: many servers close one after five, and a
POST into one that just closed counts as failed."""
_SAID = 200
"""Bytes of an answer that are read; only its status counts."""
_PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Reply:
    """How one try ended."""

    status: int | None = None
    """None: the target did not answer."""
    problem: str = ""
    wait: float = 0.0
    """Seconds that the target asks to wait; 0 without a wish."""
    said: str = ""

    @property
    def taken(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        """True if the target refuses this event; neither: it is away, slow, or has too much to do.
        A redirect is a refusal: it is not followed, for it may lead anywhere."""
        later = self.status is None or self.status >= 500 or self.status in (408, 425, 429)
        return not (later or self.taken)


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is posted once."""

    kind: str
    delivery: str
    """The same each time it is sent, and never another's: a new journal counts from 1 again, so
    the number alone would not do."""
    wall: float
    """When it happened."""
    body: bytes
    what: str
    """For the log and the journal, without text and numbers."""


def pack_event(entry: JournalEntry) -> Parcel:
    """The entry as the API shows it."""
    shown, name = show_event(entry), f"{entry.cursor}-{round(entry.wall * 1000)}"
    shown = {"id": shown.pop("cursor"), **shown}
    return Parcel(entry.kind, name, entry.wall, _body(shown), f"event {entry.cursor}")


def pack_record(id: InstanceId, record: Mapping[str, Any]) -> Parcel:
    """What arrived in a session, as the API shows it, with its session."""
    cursor, kept = record["cursor"], record.get("kept")
    name = f"{id}-{cursor}-{round((kept or record.get('since') or 0.0) * 1000)}"
    body, what = _body({**record, "instance": id}), f"record {cursor} of {id}"
    return Parcel(str(record["kind"]), name, float(kept or time.time()), body, what)


def _body(shown: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode({**shown, "machine": socket.gethostname(), "agent": VERSION})


def sign(key: bytes, delivery: str, moment: str, body: bytes) -> str:
    """The header of Standard Webhooks. The time is signed too: a copy cannot be sent later."""
    signed = hmac.digest(key, f"{delivery}.{moment}.".encode() + body, hashlib.sha256)
    return f"v1,{b64encode(signed).decode()}"


def retry_after(text: str) -> float:
    """The seconds that a Retry-After header asks for, within bounds; 0 = none."""
    return min(float(text), LONGEST_RETRY_AFTER) if text.isdecimal() else 0.0


def open_files(declared: WebhookDeclaration) -> tuple[bytes, ssl.SSLContext | None]:
    """The key, and the trusted certificates. ConfigError: one of them cannot be read."""
    key, path = secret_of(declared), declared.ca_file
    try:
        return key, ssl.create_default_context(cafile=path) if path else None
    except OSError as error:
        cause = error.strerror or "it holds no certificate"
        whose = f"ca_file of webhook {declared.name}"
        raise ConfigError(f"cannot read {path} ({whose}): {cause}") from error


class RequestLine:
    """Connections to one webhook, kept while there is more to send."""

    def __init__(self, declared: WebhookDeclaration, key: bytes, tls: ssl.SSLContext | None):
        self._url, self._key = declared.url, key
        self._http = aiohttp.ClientSession(
            connector=open_connector(private=declared.private, tls=tls),
            timeout=aiohttp.ClientTimeout(total=declared.timeout),
            headers={"User-Agent": f"wa-agent/{VERSION}", "Content-Type": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,  # a proxy would look names up itself, and judge no address
        )

    @classmethod
    async def open(cls, declared: WebhookDeclaration) -> "RequestLine":
        """ConfigError: a file of it cannot be read."""
        return cls(declared, *await asyncio.to_thread(open_files, declared))

    async def close(self) -> None:
        await self._http.close()

    async def post(self, parcel: Parcel) -> Reply:
        moment = str(int(time.time()))
        headers = {"webhook-id": parcel.delivery, "webhook-timestamp": moment}
        if self._key:
            headers["webhook-signature"] = sign(self._key, parcel.delivery, moment, parcel.body)
        asked = self._http.post(self._url, data=parcel.body, headers=headers, allow_redirects=False)
        said = b""
        try:
            async with asked as back:
                # Read, so that the connection can be used again.
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    async with asyncio.timeout(_PATIENCE):
                        said = await back.content.read(_SAID)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Reply(problem=problem_of(error))
        problem = "" if 200 <= back.status < 300 else f"it answered {back.status}"
        if 300 <= back.status < 400:
            problem += ": redirects are not followed"
        wait = retry_after(back.headers.get("Retry-After", ""))
        return Reply(back.status, problem, wait, said.decode(errors="replace"))


def problem_of(error: Exception) -> str:
    if isinstance(denied := getattr(error, "os_error", None), AddressDenied):
        return str(denied)
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return f"it cannot be reached: {cause_of(error)}"


class AddressDenied(OSError):
    """Nothing is sent to this address."""


def check_address(address: str, *, private: bool) -> None:
    if why := refuse_address(address, private=private):
        raise AddressDenied(f"nothing is sent to {address}: {why}")


def open_connector(*, private: bool, tls: ssl.SSLContext | None) -> aiohttp.TCPConnector:
    """`private`: allow this machine and private networks."""

    def make_socket(info: Any) -> socket.socket:
        family, kind, protocol, _, place = info
        check_address(str(place[0]), private=private)
        return socket.socket(family, kind, protocol)

    connector = aiohttp.TCPConnector(
        ssl=True if tls is None else tls,
        resolver=Resolver(),
        use_dns_cache=False,
        socket_factory=make_socket,
        keepalive_timeout=_KEPT_OPEN,
        limit=POSTS,
    )
    loop = asyncio.get_running_loop()
    connector._factory = partial(_HeadFirst, loop=loop)  # type: ignore[assignment]
    return connector


class _HeadFirst(ResponseHandler):
    """Reads the head of an answer by itself: the library forgets a status of 2xx when more bytes
    than the head announces come with it, as with a 204 that has a body."""

    def data_received(self, data: bytes) -> None:
        head, end, rest = data.partition(b"\r\n\r\n")
        super().data_received(head + end)
        if rest:
            super().data_received(rest)
