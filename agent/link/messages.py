"""The messages of the link as the worker has them. It does not import what the agent reads with:
a worker is small.

Up: hello, claim, happened, reply. Down: hello, call. Both: refused.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from agent.core.words import Claim, InstanceId
from agent.errors import LinkError, WaError

VERSION = 1


@dataclass(frozen=True, slots=True)
class Hello:
    """A worker's first words."""

    id: InstanceId
    run: str
    engine: str
    pid: int

    def wire(self) -> dict[str, Any]:
        return {"t": "hello", "v": VERSION, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Call:
    number: int
    do: str
    args: Mapping[str, Any] = field(default_factory=dict)


def wire_claim(claim: Claim) -> dict[str, Any]:
    return asdict(claim)


def reply(number: int, value: Mapping[str, Any]) -> dict[str, Any]:
    return {"t": "reply", "n": number, "value": value}


def refusal(number: int, error: WaError) -> dict[str, Any]:
    told = {"error": str(error)[:2000], "code": error.code, "field": (error.field or "")[:80]}
    return {"t": "reply", "n": number, **told}


def read_agents(line: bytes) -> dict[str, Any]:
    """A message of the agent: hello, call or refused."""
    try:
        message = json.loads(line)
    # A bomb of brackets is a RecursionError, a number of thousands of digits a ValueError.
    except (ValueError, RecursionError) as error:
        raise malformed(str(error)) from error
    if not isinstance(message, dict):
        raise malformed("it is no object")
    return message


def read_call(message: Mapping[str, Any]) -> Call:
    number, do, args = message.get("n"), message.get("do"), message.get("args")
    if not (type(number) is int and isinstance(do, str) and isinstance(args, dict)):
        raise malformed("it is no call")
    return Call(number, do, args)


def check_version(spoken: object) -> None:
    if spoken != VERSION:
        raise LinkError(
            f"cannot speak version {spoken!r:.40} of the link: this side speaks {VERSION}",
            code="version",
        )


def malformed(why: str) -> LinkError:
    return LinkError(f"cannot accept a message: {why:.200}", code="malformed")
