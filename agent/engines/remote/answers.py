"""What a request to a backend's server returns: an answer, or ServerDown. Standard library only:
the repair script's module runs where nothing is installed."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

from agent.core.words import ServerClaim
from agent.errors import EngineError, InvalidRequest

LARGEST_BODY = 8 << 20
_SIGNS = 2


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


def segment(name: str) -> str:
    """A name, quoted as one part of a path."""
    if name in ("", ".", ".."):
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


def read_answer(what: str, status: int, raw: bytes) -> Any:
    if 300 <= status < 400:
        raise ServerDown(what, "not_found", f"it sends on to another address ({status})")
    try:
        return json.loads(raw) if raw else None
    except (ValueError, RecursionError):
        if status >= 500:
            raise ServerDown(what, "failing", f"it answers {status}") from None
        if status < 400:
            raise ServerDown(what, "garbage", "the answer is not JSON") from None
        return None
