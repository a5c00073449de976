"""What the agent hears of a worker, which may be anybody's: read and checked by msgspec.

What is judged must be right; what a person will see is made printable.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, TypeVar

from msgspec import DecodeError, Meta, Struct, convert, field
from msgspec.json import Decoder

from agent.core.words import Claim, InstanceId
from agent.errors import LinkError
from agent.link.wire import Hello, malformed

T = TypeVar("T")

_CODE = re.compile(r"[a-z0-9_]{0,64}")
Code = Annotated[str, Meta(pattern=r"^[a-z0-9_]{0,64}\Z")]


class Claimed(Struct, tag_field="t", tag="claim", frozen=True):
    claim: Claim


class Event(Struct, tag_field="t", tag="event", frozen=True):
    kind: Code
    detail: dict[str, Any]


class Reply(Struct, tag_field="t", tag="reply", frozen=True):
    """The answer to a call: a value, or an error with its stable code."""

    n: Annotated[int, Meta(ge=0, lt=2**53)]
    value: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    code: Code = ""
    field: str = ""
    """What in the arguments is wrong, where it is that."""


Heard = Claimed | Event | Reply
_decoder: Decoder[Heard] = Decoder(Heard)


def read_workers(line: bytes) -> Heard:
    return _checked(lambda: _decoder.decode(line))


def read_hello(value: dict[str, Any], expected: InstanceId) -> Hello:
    told = _checked(lambda: convert(value, Hello))
    if told.id != expected:
        words = f"cannot accept the worker at {expected}: it says it is {told.id!r:.60}"
        raise LinkError(words, code="identity")
    return Hello(expected, shown(told.run, 64), shown(told.engine, 64), told.pid)


def parse_claim(raw: object) -> Claim:
    return raw if isinstance(raw, Claim) else sound(_checked(lambda: convert(raw, Claim)))


def _checked(read: Callable[[], T]) -> T:
    try:
        return read()
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(shown(str(error), 200)) from error


def sound(claim: Claim) -> Claim:
    codes = (claim.reason, claim.phase, claim.guess, *claim.useless)
    if len(claim.useless) > 8 or not all(_CODE.fullmatch(code) for code in codes):
        raise malformed("not a short code")
    if not 0 <= (claim.progress or 0.0) <= 1:
        raise malformed("progress is not between 0 and 1")
    if (claim.proof_age or 0.0) < 0 or claim.still_for < 0:
        raise malformed("an age is negative")
    raw, account = shown(claim.raw, 500), shown(claim.account, 128)
    return replace(claim, raw=raw, account=account, version=shown(claim.version, 64))


def shown(text: str, limit: int) -> str:
    """Control characters would reach terminals and logs."""
    text = text[:limit]
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
