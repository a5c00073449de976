"""What is posted to a webhook, what its answer means, and one signed, bounded POST. No error has
the URL, the secret or the event."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

import aiohttp

from agent.core.event_json import show_event
from agent.core.model import InstanceId, JournalEntry
from agent.errors import ConfigError
from agent.wings.webhooks.guarded_address import AddressDenied, open_connector
from agent.wings.webhooks.settings import WebhookDeclaration, secret_of

OWN_KINDS = "webhook"
"""Kinds that begin so are about webhooks themselves; `detail` names which."""
LONGEST_RETRY_AFTER = 3600.0
"""A target may ask for a wait of so many seconds at most."""
_SAID = 1024
"""Bytes of an answer that are read; only its status counts."""
_PATIENCE = 1.0


class Answer(StrEnum):
    TAKEN = "taken"
    LATER = "later"
    """Not now: the target is away, slow, or has too much to do."""
    REFUSED = "refused"
    """The target answered, and refuses this event."""


@dataclass(frozen=True, slots=True)
class Reply:
    """How one try ended."""

    answer: Answer
    status: int | None = None
    problem: str = ""
    wait: float = 0.0
    """Seconds that the target asks to wait; 0 without a wish."""
    said: str = ""


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


def parcel_of(entry: JournalEntry, machine: str, version: str) -> Parcel:
    """The entry as the API shows it, with its machine and version."""
    shown = show_event(entry)
    sent = {"id": shown.pop("cursor"), **shown, "machine": machine, "agent": version}
    try:
        body = json.dumps(sent, separators=(",", ":"), allow_nan=False)
    except ValueError:
        # An infinite number is no JSON; the entry is sent without its detail, not held up.
        body = json.dumps({**sent, "detail": {}}, separators=(",", ":"))
    name = f"{entry.cursor}-{round(entry.wall * 1000)}"
    return Parcel(entry.kind, name, entry.wall, body.encode(), f"event {entry.cursor}")


def parcel_of_record(
    id: InstanceId, record: Mapping[str, Any], machine: str, version: str
) -> Parcel:
    """What arrived in a session, as the API shows it, with its session, machine and version."""
    sent = {**record, "instance": id, "machine": machine, "agent": version}
    cursor, kept = record.get("cursor", 0), record.get("kept") or record.get("since") or 0.0
    body = json.dumps(sent, separators=(",", ":")).encode()
    name, wall = f"{id}-{cursor}-{round(kept * 1000)}", float(record.get("kept") or time.time())
    return Parcel(str(record["kind"]), name, wall, body, f"record {cursor} of {id}")


def wants(name: str, kinds: Sequence[str], instances: Sequence[str], entry: JournalEntry) -> bool:
    """Whether that webhook is sent that entry; never an entry about itself, or it would go
    round."""
    if entry.kind.startswith(OWN_KINDS) and entry.detail.get("webhook") == name:
        return False
    if not any(fnmatchcase(entry.kind, pattern) for pattern in kinds):
        return False
    if entry.instance is None:
        return "*" in instances
    return any(fnmatchcase(entry.instance, pattern) for pattern in instances)


def sign(secret: bytes, moment: int, body: bytes) -> str:
    """The X-WA-Signature header. The time is signed too, so that a copy cannot be sent later."""
    signed = hmac.new(secret, f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={signed}"


def judge_answer(status: int) -> Answer:
    if 200 <= status < 300:
        return Answer.TAKEN
    if status in (408, 425, 429) or status >= 500:
        return Answer.LATER
    # A redirect too: it is not followed, for it may lead anywhere.
    return Answer.REFUSED


def retry_after(text: str | None, now_wall: float) -> float:
    """The seconds that a Retry-After header asks for, within bounds; 0 = none."""
    if not text or len(text) > 64:
        return 0.0
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    else:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now_wall
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


class RequestLine:
    """A connection to one webhook, kept while there is more to send."""

    def __init__(self, declared: WebhookDeclaration, secret: bytes, http: aiohttp.ClientSession):
        self._declared = declared
        self._secret = secret
        self._http = http

    @classmethod
    async def open(cls, declared: WebhookDeclaration, version: str) -> "RequestLine":
        """Reads the secret and the certificates. ConfigError: one of them cannot be read."""
        secret, tls = await asyncio.to_thread(_read, declared)
        http = aiohttp.ClientSession(
            connector=open_connector(private=declared.private, tls=tls),
            timeout=aiohttp.ClientTimeout(total=declared.timeout),
            headers={"User-Agent": f"wa-agent/{version}"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,  # a proxy would look names up itself, and judge no address
        )
        return cls(declared, secret, http)

    async def close(self) -> None:
        await self._http.close()

    async def post(self, parcel: Parcel) -> Reply:
        headers = {
            "Content-Type": "application/json",
            "X-WA-Event": parcel.kind,
            "X-WA-Delivery": parcel.delivery,
        }
        if self._secret:
            headers["X-WA-Signature"] = sign(self._secret, int(time.time()), parcel.body)
        try:
            return await self._post(parcel.body, headers)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Reply(Answer.LATER, problem=problem_of(error, self._declared.timeout))

    async def _post(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        url = self._declared.url
        async with self._http.post(url, data=body, headers=headers, allow_redirects=False) as back:
            verdict, said = judge_answer(back.status), b""
            # Read, so that the connection can be used again.
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with asyncio.timeout(_PATIENCE):
                    said = await back.content.read(_SAID)
            taken = verdict is Answer.TAKEN
            return Reply(
                verdict,
                back.status,
                "" if taken else _answered(back.status),
                retry_after(back.headers.get("Retry-After"), time.time()),
                said.decode(errors="replace"),
            )


def _answered(status: int) -> str:
    if 300 <= status < 400:
        return f"it answered {status}: redirects are not followed"
    return f"it answered {status}"


def problem_of(error: Exception, timeout: float) -> str:
    """The cause without the library's text, which may hold the whole URL."""
    if isinstance(error, TimeoutError):
        return f"it did not answer within {timeout:g} s"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, AddressDenied):
        return str(cause)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is refused: {error.certificate_error}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS with it fails: {cause.reason or 'refused'}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name cannot be looked up"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection without an answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return "its answer is not HTTP"
    if isinstance(cause, OSError):
        # The library's "Connect call failed" does not tell the cause.
        why = os.strerror(cause.errno) if cause.errno else type(cause).__name__
        return f"it cannot be reached: {why}"
    return f"it cannot be reached: {type(error).__name__}"


def _read(declared: WebhookDeclaration) -> tuple[bytes, ssl.SSLContext | None]:
    secret = secret_of(declared)
    if not declared.ca_file:
        return secret, None
    try:
        return secret, ssl.create_default_context(cafile=declared.ca_file)
    except (OSError, ssl.SSLError) as error:
        cause = error.strerror or "it holds no certificate"
        raise ConfigError(
            f"cannot read {declared.ca_file} (ca_file of webhook {declared.name}): {cause}",
            field="webhook.ca_file",
        ) from error
