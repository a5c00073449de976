"""What a request to a backend's server returns: an answer, or ServerDown. Standard library only:
the repair script's module runs where nothing is installed."""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

from agent.core.words import ServerClaim
from agent.errors import EngineError, InvalidRequest

LARGEST_BODY = 8 << 20
_SIGNS = 2
_GZIP_OR_ZLIB = 32
"""zlib tells by the first bytes which of both it is."""


class ServerDown(EngineError):
    """The server gave no usable answer, which proves nothing about the session. `code` is always
    the same, so no caller acts on the session; `reason` is ServerClaim's word."""

    code = "backend_down"

    def __init__(self, what: str, reason: str, cause: str, *, reached: bool = True) -> None:
        """`reached`: False where the request surely did not get to the server."""
        super().__init__(f"cannot {what}: {cause}")
        self.reason = reason
        self.cause = cause
        self.reached = reached


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` is None where the answer had none, or a refusal was not JSON."""

    status: int
    body: Any = field(repr=False)
    seconds: float
    ours: tuple[str, ...] = field(default=(), repr=False)
    """What the request itself said, its key among it: a refusal may repeat it."""

    @property
    def good(self) -> bool:
        return self.status < 400

    def without_ours(self, words: str) -> str:
        """The server's words without keys, message texts and numbers that it got from us."""
        for text in sorted(self.ours, key=len, reverse=True):
            words = words.replace(text, "…")
        return words


class Http(Protocol):
    """One server's connections: RemoteHttp or PlainHttp."""

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
    ) -> Answer: ...

    async def close(self) -> None: ...


def silent_for(limit: float) -> str:
    """The cause of a request that was given up."""
    return f"no answer within {round(limit, 1):g} s"


def texts_of(body: Any) -> Iterator[str]:
    """The texts of a request, however deep; a sign or two tell nothing, and stand in every word."""
    if isinstance(body, str):
        yield from (body,) if len(body) > _SIGNS else ()
    elif isinstance(body, Mapping | list):
        for part in body.values() if isinstance(body, Mapping) else body:
            yield from texts_of(part)


def can_be_asked_for(name: str) -> bool:
    """Whether a path can hold this name: every client resolves the others."""
    return name not in ("", ".", "..")


def left_out(names: Sequence[str]) -> str:
    """What to say of rows of a server's list that can be no sessions; "" = there are none."""
    if not names:
        return ""
    shown = ", ".join(f"{name!r:.60}" for name in names[:5])
    return f"its list has {len(names)} that no request can name, left out here: {shown}"


def segment(name: str) -> str:
    """A name, quoted as one part of a path."""
    if not can_be_asked_for(name):
        raise InvalidRequest(f"cannot use {name!r} as a name on a server", field="remote")
    return quote(name, safe="")


def remote_name(settings: Mapping[str, Any]) -> str:
    """A session's name on its server; "" where its settings name none."""
    remote = settings.get("remote") or ""
    if not isinstance(remote, str) or len(remote) > 200:
        raise InvalidRequest("cannot watch the session: remote is no name", field="remote")
    return remote


def claim_of(down: ServerDown, *, version: str = "", seconds: float = 0.0) -> ServerClaim:
    """The server's state, from a failed request."""
    return ServerClaim(False, down.reason, str(down), version, seconds)


class _Packed(ValueError):
    """A compressed answer that cannot be read; its text is the cause."""


def read_answer(what: str, status: int, raw: bytes, encoding: str = "") -> Any:
    """`encoding`: its Content-Encoding. Compression is never asked for; some proxies do it."""
    if 300 <= status < 400:
        raise ServerDown(what, "not_found", f"it sends on to another address ({status})")
    try:
        return json.loads(_unpacked(raw, encoding)) if raw else None
    except (ValueError, RecursionError) as error:
        if status >= 500:
            raise ServerDown(what, "failing", f"it answers {status}") from None
        if status < 400:
            cause = str(error) if isinstance(error, _Packed) else "the answer is not JSON"
            raise ServerDown(what, "garbage", cause) from None
        return None


def _unpacked(raw: bytes, encoding: str) -> bytes:
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return raw
    if name not in ("gzip", "x-gzip", "deflate"):
        raise _Packed(
            f"its answer is compressed though the agent asked for none (Content-Encoding:"
            f" {name!r:.40}): switch that off in the proxy before the server"
        )
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | _GZIP_OR_ZLIB)
    try:
        content = unpacking.decompress(raw, LARGEST_BODY)
    except zlib.error:
        raise _Packed(f"its compressed answer cannot be read (Content-Encoding: {name})") from None
    if not unpacking.eof:
        cut = "is larger than 8 MiB" if len(content) >= LARGEST_BODY else "ends early"
        raise _Packed(f"its compressed answer {cut} (Content-Encoding: {name})")
    return content
