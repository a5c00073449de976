"""The messages between the agent and a worker, as frozen values. Pure, no I/O.

`parse_*` turn a decoded object into one of these and refuse all else; `wire_*` and
`.wire()` give the object to encode. Keys that are not known here are ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from agent.core.words import (
    Claim,
    ConnectionStatus,
    Happening,
    InstanceId,
    ServerClaim,
)
from agent.errors import LinkError
from agent.link.fields import (
    code_in,
    codes_in,
    id_in,
    number_in,
    object_in,
    seconds_in,
    text_in,
    truth_in,
    whole_in,
    wrong,
)

VERSION = 1


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
        claim = parse_claim(object_in(message, "claim"))
        return Claimed(id_in(message), text_in(message, "run", 64), claim)
    if kind == "happened":
        happening = Happening(code_in(message, "kind"), object_in(message, "detail"))
        return Happened(id_in(message), text_in(message, "run", 64), happening)
    if kind == "server":
        server = parse_server_claim(object_in(message, "claim"))
        return ServerClaimed(text_in(message, "run", 64), server)
    if kind == "reply":
        return _parse_reply(message)
    if kind == "hello":
        _check_version(message)
        pid = whole_in(message, "pid")
        return Hello(
            id_in(message), text_in(message, "run", 64), text_in(message, "engine", 64), pid
        )
    if kind == "refused":
        return Refused(text_in(message, "why", 500))
    raise wrong("t", "not a worker's message")


def parse_from_agent(message: Mapping[str, Any]) -> FromAgent:
    kind = message.get("t")
    if kind == "call":
        args = object_in(message, "args") if "args" in message else {}
        return Call(whole_in(message, "n"), code_in(message, "do"), id_in(message), args)
    if kind == "hello":
        _check_version(message)
        return AgentHello()
    if kind == "refused":
        return Refused(text_in(message, "why", 500))
    raise wrong("t", "not an agent's message")


def wire_claim(claim: Claim) -> dict[str, Any]:
    return {**_fields_of(claim), "useless": list(claim.useless)}


def parse_claim(raw: Mapping[str, Any]) -> Claim:
    """Read a claim; what a person will see is made printable, what is judged must be right."""
    try:
        status = ConnectionStatus(str(raw.get("status")))
    except ValueError as error:
        raise wrong("status", "not a status") from error
    progress = number_in(raw, "progress")
    if progress is not None and not 0 <= progress <= 1:
        raise wrong("progress", "not between 0 and 1")
    return Claim(
        status=status,
        reason=code_in(raw, "reason", ""),
        phase=code_in(raw, "phase", ""),
        progress=progress,
        proof_age=seconds_in(raw, "proof_age"),
        still_for=seconds_in(raw, "still_for") or 0.0,
        paired=truth_in(raw, "paired"),
        account=text_in(raw, "account", 128, ""),
        until_wall=number_in(raw, "until_wall"),
        raw=text_in(raw, "raw", 500, ""),
        version=text_in(raw, "version", 64, ""),
        guess=code_in(raw, "guess", ""),
        useless=codes_in(raw, "useless"),
        pairing_unknown=truth_in(raw, "pairing_unknown"),
        made_elsewhere=truth_in(raw, "made_elsewhere"),
    )


def parse_server_claim(raw: Mapping[str, Any]) -> ServerClaim:
    if "up" not in raw:
        raise wrong("up", "missing")
    return ServerClaim(
        up=truth_in(raw, "up"),
        reason=code_in(raw, "reason", ""),
        sentence=text_in(raw, "sentence", 500, ""),
        version=text_in(raw, "version", 64, ""),
        seconds=seconds_in(raw, "seconds") or 0.0,
        sessions=whole_in(raw, "sessions") if raw.get("sessions") is not None else None,
        next_check=seconds_in(raw, "next_check"),
    )


def _parse_reply(message: Mapping[str, Any]) -> Reply:
    number = whole_in(message, "n")
    if truth_in(message, "ok"):
        return Reply(number, object_in(message, "value"))
    error = object_in(message, "error")
    return Reply(
        number,
        error=text_in(error, "message", 2000),
        code=code_in(error, "code") or "engine",
        field=text_in(error, "field", 80, ""),
    )


def _check_version(message: Mapping[str, Any]) -> None:
    spoken = message.get("v")
    if spoken != VERSION or isinstance(spoken, bool):
        raise LinkError(
            f"cannot speak version {spoken!r:.40} of the link: this side speaks {VERSION}",
            code="version",
        )


def _fields_of(value: Any) -> dict[str, Any]:
    return {field_.name: getattr(value, field_.name) for field_ in fields(value)}
