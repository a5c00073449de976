"""One POST to one webhook: signed, bounded, never redirected. Its errors contain neither the URL
nor the secret nor the event."""

import asyncio
import contextlib
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from agent.errors import ConfigError
from agent.wings.webhooks.deliveries import Answer, judge_answer, retry_after, sign
from agent.wings.webhooks.guarded_address import AddressDenied, open_connector
from agent.wings.webhooks.settings import WebhookDeclaration, secret_of

_SAID = 1024
"""Bytes of an answer that are read; only its status counts."""
_PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Reply:
    """How one try ended."""

    answer: Answer
    status: int | None = None
    problem: str = ""
    wait: float = 0.0
    """Seconds that the target asks to wait; 0 without a wish."""
    said: str = ""


class RequestLine:
    """A connection to one webhook, kept while there is more to send."""

    def __init__(self, declared: WebhookDeclaration, secret: bytes, http: aiohttp.ClientSession):
        self._declared = declared
        self._secret = secret
        self._http = http

    @classmethod
    async def open(
        cls, declared: WebhookDeclaration, version: str, *, connections: int = 2
    ) -> "RequestLine":
        """Reads the secret and the certificates. ConfigError: one of them cannot be read."""
        secret, tls = await asyncio.to_thread(_read, declared)
        http = aiohttp.ClientSession(
            connector=open_connector(private=declared.private, tls=tls, connections=connections),
            timeout=aiohttp.ClientTimeout(total=declared.timeout),
            headers={"User-Agent": f"wa-agent/{version}"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,  # a proxy would look names up itself, and judge no address
        )
        return cls(declared, secret, http)

    async def close(self) -> None:
        await self._http.close()

    async def post(self, body: bytes, event: str, delivery: str) -> Reply:
        headers = {
            "Content-Type": "application/json",
            "X-WA-Event": event,
            "X-WA-Delivery": delivery,
        }
        if self._secret:
            headers["X-WA-Signature"] = sign(self._secret, int(time.time()), body)
        try:
            return await self._post(body, headers)
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
