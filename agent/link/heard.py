"""What the agent hears of a worker, which may be anybody's: read and checked by msgspec.

What is judged must be right; what a person will see is made printable.
"""

import re
from dataclasses import replace
from typing import Annotated, Any

from msgspec import DecodeError, Meta, Struct, ValidationError, convert, field
from msgspec.json import Decoder

from agent.core.words import Claim, InstanceId, parse_instance_id
from agent.errors import InvalidRequest
from agent.link.messages import Hello, check_version, malformed

_CODE = re.compile(r"[a-z0-9_]{0,64}")
_MOST_CODES = 8
Code = Annotated[str, Meta(pattern=r"^[a-z0-9_]{0,64}\Z")]
Whole = Annotated[int, Meta(ge=0, lt=2**53)]


class Greeting(Struct, tag_field="t", tag="hello", frozen=True):
    v: int
    id: str
    run: str
    engine: str
    pid: Whole

    def hello(self) -> Hello:
        check_version(self.v)
        try:
            id = parse_instance_id(self.id)
        except InvalidRequest as error:
            raise malformed("id is not an instance id") from error
        return Hello(InstanceId(id), shown(self.run, 64), shown(self.engine, 64), self.pid)


class Claimed(Struct, tag_field="t", tag="claim", frozen=True):
    run: str
    claim: Claim


class Happened(Struct, tag_field="t", tag="happened", frozen=True):
    run: str
    kind: Code
    detail: dict[str, Any]


class Reply(Struct, tag_field="t", tag="reply", frozen=True):
    """The answer to a call: a value, or an error with its stable code."""

    n: Whole
    value: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    code: Code = ""
    field: str = ""
    """What in the arguments is wrong, where it is that."""


class Refused(Struct, tag_field="t", tag="refused", frozen=True):
    """The other side does not go on."""

    why: str


Heard = Greeting | Claimed | Happened | Reply | Refused
_decoder: Decoder[Heard] = Decoder(Heard)


def read_workers(line: bytes) -> Heard:
    try:
        return _decoder.decode(line)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(shown(str(error), 200)) from error


def parse_claim(raw: object) -> Claim:
    if isinstance(raw, Claim):
        return raw
    try:
        return sound(convert(raw, Claim))
    except ValidationError as error:
        raise malformed(shown(str(error), 200)) from error


def sound(claim: Claim) -> Claim:
    codes = (claim.reason, claim.phase, claim.guess, *claim.useless)
    if len(claim.useless) > _MOST_CODES or not all(_CODE.fullmatch(code) for code in codes):
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
