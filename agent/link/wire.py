"""What both ends of the link know: its lines and its words. No I/O, and nothing that makes a worker
larger is imported."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.core.words import InstanceId
from agent.errors import LinkError, WaError

VERSION = 1
LINE_LIMIT = 1 << 20
"""Bytes of one message without its line's end."""


@dataclass(frozen=True, slots=True)
class Hello:
    """Who a worker is."""

    id: InstanceId
    run: str
    engine: str
    pid: int


@dataclass(frozen=True, slots=True)
class Call:
    number: int
    do: str
    args: Mapping[str, Any] = field(default_factory=dict)


def reply(number: int, value: Mapping[str, Any] | WaError) -> dict[str, Any]:
    if not isinstance(value, WaError):
        return {"t": "reply", "n": number, "value": value}
    told = {"error": str(value)[:2000], "code": value.code, "field": (value.field or "")[:80]}
    return {"t": "reply", "n": number, **told}


def read_call(line: bytes) -> Call:
    try:
        message = json.loads(line)
        call = Call(message["n"], message["do"], message["args"])
    # A bomb of brackets is a RecursionError, a number of thousands of digits a ValueError.
    except (ValueError, RecursionError, TypeError, LookupError) as error:
        raise malformed(f"it is no call: {error}") from error
    if not (type(call.number) is int and isinstance(call.do, str) and isinstance(call.args, dict)):
        raise malformed("it is no call")
    return call


def malformed(why: str) -> LinkError:
    return LinkError(f"cannot accept a message: {why:.200}", code="malformed")


def encode(message: Mapping[str, Any]) -> bytes:
    """The line of one message; what the other end would refuse is refused here."""
    try:
        text = json.dumps(message, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        line = text.encode()  # half of a surrogate pair is a ValueError
    except (TypeError, ValueError, RecursionError) as error:
        raise LinkError(f"cannot write a message: {error}", code="malformed") from error
    if len(line) > LINE_LIMIT:
        words = f"cannot write a message: {len(line)} bytes, at most {LINE_LIMIT}"
        raise LinkError(words, code="oversized")
    return line + b"\n"


class Lines:
    """Bytes in as they come, whole lines out."""

    _rest = b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        for line in (*whole, self._rest):
            if len(line) > LINE_LIMIT:
                words = f"cannot read a message: more than {LINE_LIMIT} bytes"
                raise LinkError(words, code="oversized")
        yield from whole
