"""Sends a request's command to an engine, and turns the engine's refusal into an error."""

from collections.abc import Mapping
from typing import Any

from agent.api.http.call import Call
from agent.errors import EngineError, InvalidRequest, Refused, TryLater

STATES = frozenset(
    {"not_waiting", "remote_missing", "remote_ambiguous", "remote_name", "remote_refused"}
)
"""Codes of an engine: the session's state does not allow the command."""


async def command(
    call: Call,
    name: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    lacking: str,
    timeout: float,
    alone: bool = False,
    known: bool = False,
) -> Mapping[str, Any]:
    """`lacking`: the error if the engine has no such command. `known`: the engine has the command,
    so `invalid_request` is about the arguments."""
    try:
        return await call.supervisor.asking.command(
            call.id, name, arguments or {}, timeout=timeout, alone=alone
        )
    except (EngineError, InvalidRequest) as error:
        if error.code == "busy":
            raise TryLater(str(error), code="busy") from error
        if error.code == "invalid_request":
            if known:
                raise InvalidRequest(str(error), field="body") from error
            raise Refused(lacking, code="not_supported") from error
        if error.code == "not_supported" or error.code in STATES:
            raise Refused(str(error), code=error.code) from error
        raise
