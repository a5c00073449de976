"""What the agent and a worker can say to each other, as frozen values. Pure, no I/O.

`parse_*` turn a decoded object into one of these and refuse all else; `wire_*` and
`.wire()` give the object to encode. Keys that are not known here are ignored.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from agent.core.words import (
    Claim,
    ConnectionStatus,
    Happening,
    InstanceId,
    ServerClaim,
    parse_instance_id,
)
from agent.errors import InvalidRequest, LinkError

VERSION = 1
_CODE = re.compile(r"[a-z0-9_]{0,64}")
_MOST_CODES = 8
_NUMBER_LIMIT = 2**53


@dataclass(frozen=True, slots=True)
class Hello:
    """A worker's first words."""

    id: InstanceId
    run: str
    engine: str
    pid: int

    def wire(self) -> dict[str, Any]:
        return {"t": "hello", "v": VERSION, **_fields_of(self)}


@dataclass(frozen=True, slots=True)
class Refused:
    """The other side does not go on."""

    why: str

    def wire(self) -> dict[str, Any]:
        return {"t": "refused", "why": self.why}


@dataclass(frozen=True, slots=True)
class AgentHello:
    """The agent's answer to `Hello`."""

    def wire(self) -> dict[str, Any]:
        return {"t": "hello", "v": VERSION}


@dataclass(frozen=True, slots=True)
class Claimed:
    id: InstanceId
    run: str
    claim: Claim

    def wire(self) -> dict[str, Any]:
        return {"t": "claim", "run": self.run, "id": self.id, "claim": wire_claim(self.claim)}


@dataclass(frozen=True, slots=True)
class ServerClaimed:
    """What a backend's worker says of the server behind it."""

    run: str
    claim: ServerClaim

    def wire(self) -> dict[str, Any]:
        return {"t": "server", "run": self.run, "claim": _fields_of(self.claim)}


@dataclass(frozen=True, slots=True)
class Happened:
    id: InstanceId
    run: str
    happening: Happening

    def wire(self) -> dict[str, Any]:
        what = self.happening
        detail = dict(what.detail)
        return {
            "t": "happened",
            "run": self.run,
            "id": self.id,
            "kind": what.kind,
            "detail": detail,
        }


@dataclass(frozen=True, slots=True)
class Call:
    number: int
    do: str
    id: InstanceId
    args: Mapping[str, Any] = field(default_factory=dict)

    def wire(self) -> dict[str, Any]:
        args = dict(self.args)
        return {"t": "call", "n": self.number, "do": self.do, "id": self.id, "args": args}


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a call: a value, or an error with its stable code."""

    number: int
    value: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    """The error's message; "" when the call went well."""
    code: str = ""
    field: str = ""
    """What in the arguments is wrong, where it is that."""

    def wire(self) -> dict[str, Any]:
        if self.code:
            error = {"code": self.code, "message": self.error}
            if self.field:
                error["field"] = self.field
            return {"t": "reply", "n": self.number, "ok": False, "error": error}
        return {"t": "reply", "n": self.number, "ok": True, "value": dict(self.value)}


FromWorker = Hello | Refused | Claimed | ServerClaimed | Happened | Reply
FromAgent = AgentHello | Refused | Call


def parse_from_worker(message: Mapping[str, Any]) -> FromWorker:
    kind = message.get("t")
    if kind == "claim":
        claim = parse_claim(_object(message, "claim"))
        return Claimed(_id(message), _text(message, "run", 64), claim)
    if kind == "happened":
        happening = Happening(_code(message, "kind"), _object(message, "detail"))
        return Happened(_id(message), _text(message, "run", 64), happening)
    if kind == "server":
        server = parse_server_claim(_object(message, "claim"))
        return ServerClaimed(_text(message, "run", 64), server)
    if kind == "reply":
        return _parse_reply(message)
    if kind == "hello":
        _check_version(message)
        pid = _whole(message, "pid")
        return Hello(_id(message), _text(message, "run", 64), _text(message, "engine", 64), pid)
    if kind == "refused":
        return Refused(_text(message, "why", 500))
    raise _wrong("t", "not a worker's message")


def parse_from_agent(message: Mapping[str, Any]) -> FromAgent:
    kind = message.get("t")
    if kind == "call":
        args = _object(message, "args") if "args" in message else {}
        return Call(_whole(message, "n"), _code(message, "do"), _id(message), args)
    if kind == "hello":
        _check_version(message)
        return AgentHello()
    if kind == "refused":
        return Refused(_text(message, "why", 500))
    raise _wrong("t", "not an agent's message")


def wire_claim(claim: Claim) -> dict[str, Any]:
    return {**_fields_of(claim), "useless": list(claim.useless)}


def parse_claim(told: Mapping[str, Any]) -> Claim:
    """Read a claim; what a person will see is made printable, what is judged must be right."""
    try:
        status = ConnectionStatus(str(told.get("status")))
    except ValueError as error:
        raise _wrong("status", "not a status") from error
    progress = _number(told, "progress")
    if progress is not None and not 0 <= progress <= 1:
        raise _wrong("progress", "not between 0 and 1")
    proof_age = _number(told, "proof_age")
    if proof_age is not None and proof_age < 0:
        raise _wrong("proof_age", "negative")
    still_for = _number(told, "still_for") or 0.0
    if still_for < 0:
        raise _wrong("still_for", "negative")
    return Claim(
        status=status,
        reason=_code(told, "reason", ""),
        phase=_code(told, "phase", ""),
        progress=progress,
        proof_age=proof_age,
        still_for=still_for,
        paired=_truth(told, "paired"),
        account=_text(told, "account", 128, ""),
        until_wall=_number(told, "until_wall"),
        raw=_text(told, "raw", 500, ""),
        version=_text(told, "version", 64, ""),
        guess=_code(told, "guess", ""),
        useless=_codes(told, "useless"),
        pairing_unknown=_truth(told, "pairing_unknown"),
    )


def parse_server_claim(told: Mapping[str, Any]) -> ServerClaim:
    if "up" not in told:
        raise _wrong("up", "missing")
    seconds = _number(told, "seconds") or 0.0
    if seconds < 0:
        raise _wrong("seconds", "negative")
    next_check = _number(told, "next_check")
    if next_check is not None and next_check < 0:
        raise _wrong("next_check", "negative")
    return ServerClaim(
        up=_truth(told, "up"),
        reason=_code(told, "reason", ""),
        sentence=_text(told, "sentence", 500, ""),
        version=_text(told, "version", 64, ""),
        seconds=seconds,
        sessions=_whole(told, "sessions") if told.get("sessions") is not None else None,
        next_check=next_check,
    )


def _parse_reply(message: Mapping[str, Any]) -> Reply:
    number = _whole(message, "n")
    if _truth(message, "ok"):
        return Reply(number, _object(message, "value"))
    error = _object(message, "error")
    return Reply(
        number,
        error=_text(error, "message", 2000),
        code=_code(error, "code") or "engine",
        field=_text(error, "field", 80, ""),
    )


def _check_version(message: Mapping[str, Any]) -> None:
    spoken = message.get("v")
    if spoken != VERSION or isinstance(spoken, bool):
        raise LinkError(
            f"cannot speak version {spoken!r:.40} of the link: this side speaks {VERSION}",
            code="version",
        )


def _fields_of(value: Any) -> dict[str, Any]:
    return {each.name: getattr(value, each.name) for each in fields(value)}


def _wrong(key: str, why: str) -> LinkError:
    return LinkError(f"cannot accept a message: {key} is {why}", field=key, code="malformed")


def _id(message: Mapping[str, Any]) -> InstanceId:
    try:
        return parse_instance_id(message.get("id"))
    except InvalidRequest as error:
        raise _wrong("id", "not an instance id") from error


def _text(message: Mapping[str, Any], key: str, limit: int, default: str | None = None) -> str:
    value = message.get(key, default)
    if not isinstance(value, str):
        raise _wrong(key, "not text")
    # Control characters would reach terminals and logs.
    shown = value[:limit]
    return shown if shown.isprintable() else "".join(c if c.isprintable() else " " for c in shown)


def _code(message: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = message.get(key, default)
    if not isinstance(value, str) or not _CODE.fullmatch(value):
        raise _wrong(key, "not a short code")
    return value


def _codes(message: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = message.get(key, ())
    if not isinstance(value, list | tuple) or len(value) > _MOST_CODES:
        raise _wrong(key, "not a short list")
    if not all(isinstance(each, str) and _CODE.fullmatch(each) for each in value):
        raise _wrong(key, "not a list of short codes")
    return tuple(value)


def _truth(message: Mapping[str, Any], key: str) -> bool:
    value = message.get(key, False)
    if not isinstance(value, bool):
        raise _wrong(key, "neither true nor false")
    return value


def _whole(message: Mapping[str, Any], key: str) -> int:
    value = message.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _NUMBER_LIMIT:
        raise _wrong(key, "not a whole number")
    return value


def _number(message: Mapping[str, Any], key: str) -> float | None:
    value = message.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > _NUMBER_LIMIT:
        raise _wrong(key, "not a number")
    return float(value)


def _object(message: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = message.get(key)
    if not isinstance(value, dict):
        raise _wrong(key, "not an object")
    return value
