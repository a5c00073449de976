"""A command that a request has for an engine, and the engine's refusal as an answer of ours."""

from collections.abc import Mapping
from typing import Any

from agent.api.http.call import Call
from agent.errors import EngineError, InvalidRequest, Refused, TryLater

STATES = frozenset(
    {"not_waiting", "remote_missing", "remote_ambiguous", "remote_name", "remote_refused"}
)
"""Words of an engine that say: what was asked for does not fit how things are there."""


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
    """`lacking`: what to say when the engine knows no such command.

    `known`: that it does is certain, so what it calls invalid are the arguments.
    """
    try:
        return await call.supervisor.command(
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
