"""A session by its worker: a code for the phone, a picture of its page; on a server, files that
repairs removed, and deletion."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from agent.api.http.call import Call, Json
from agent.api.http.fields import STRING, Field
from agent.api.present import show_instance
from agent.core.model import Instance
from agent.core.session import wall_text
from agent.errors import EngineError, InvalidRequest, NotFound, Refused, TryLater
from agent.supervise.calls import COMMAND_TIMEOUT

PAIRING_CODE = (
    Field(
        "phone",
        STRING,
        "the account's number, with country code",
        True,
        least=7,
        most=32,
        pattern=r"[^0-9]*(?:[0-9][^0-9]*){7,15}",
    ),
)
_FAILED = frozenset(
    {"engine", "timeout", "page_error", "page_incomplete", "not_ready", "backend_down"}
)
"""Failures of an engine; its other codes refuse the request in this state."""
_PICTURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}
"""A page full of photos is a JPEG: as PNG it would be too long for the worker's answer."""
_PAIRING_TIMEOUT = 45.0
"""A server may have to end one login and begin another before it has a code."""


async def pairing_code(call: Call) -> Json:
    """A code to type on the phone instead of a scan."""
    body = await call.body()
    if not 7 <= sum(sign in "0123456789" for sign in body["phone"]) <= 15:
        raise InvalidRequest(
            "cannot use the field 'phone': it must be a number with 7 to 15 digits", field="phone"
        )
    answer = await _ask(call, "pairing_code", {"phone": body["phone"]}, _PAIRING_TIMEOUT)
    return {"code": answer.get("code"), "expires_in": answer.get("expires_in")}


async def screenshot(call: Call) -> web.Response:
    """A picture of an instance's page: PNG, or JPEG if a PNG is too large."""
    answer = await _ask(call, "screenshot", {"format": "png"}, COMMAND_TIMEOUT)
    try:
        content = base64.b64decode(str(answer.get("content", "")), validate=True)
    except binascii.Error:
        content = b""
    for start, kind in _PICTURES.items():
        if content.startswith(start):
            return web.Response(body=content, content_type=kind)
    raise EngineError(f"cannot show the page of {call.id}: the worker sent no picture")


async def _ask(
    call: Call, name: str, arguments: Mapping[str, Any], timeout: float
) -> Mapping[str, Any]:
    engine = call.supervisor.view(call.id).instance.engine
    try:
        return await call.supervisor.asking.command(call.id, name, arguments, timeout=timeout)
    except EngineError as error:
        if error.code in _FAILED:
            raise
        if error.code == "invalid_request":
            shown = name.replace("_", " ")
            raise Refused(
                f"cannot make a {shown} of {call.id}: its engine {engine} offers none",
                code="not_supported",
            ) from error
        raise Refused(str(error), code=error.code) from error


LIST_TIMEOUT = 30.0
LONG_TIMEOUT = 150.0
"""Such an answer comes after the session is down, or after a restore up again."""
_STATES = frozenset(
    {"not_waiting", "remote_missing", "remote_ambiguous", "remote_name", "remote_refused"}
)
"""Codes of an engine: the session's state does not allow the command."""


async def list_removed(call: Call) -> Json:
    """Files and keys that repairs removed on the backend, newest first."""
    return {"removed": [show_removed(removed) for removed in reversed(await _removed(call))]}


async def restore_removed(call: Call) -> Json:
    """Put removed files and keys back; the session is down meanwhile.

    Files in their places are removed first, as by a repair.
    """
    name = call.request.match_info["removed"]
    removed = next((row for row in await _removed(call) if row.get("name") == name), None)
    if removed is None:
        raise NotFound(
            f"cannot put back {name}: no repair of {call.id} has that name", field="name"
        )
    await _command(
        call,
        "restore_removed",
        {"name": name},
        timeout=LONG_TIMEOUT,
        alone=True,
    )
    view = call.supervisor.view(call.id)
    return {"removed": show_removed(removed), "instance": show_instance(view)}


async def delete_there(call: Call, instance: Instance) -> None:
    lacking = (
        f"cannot delete {instance.remote} on backend {instance.backend}: engine"
        f" {instance.engine} cannot; delete it on the server, and here without remote"
    )
    await _command(call, "delete", lacking=lacking, timeout=LONG_TIMEOUT, alone=True)


def show_removed(removed: Mapping[str, Any]) -> dict[str, Any]:
    at = removed.get("at")
    return {
        **{name: removed.get(name) for name in ("name", "why", "state", "files", "keys", "whole")},
        "removed": wall_text(float(at)) if isinstance(at, int | float) else None,
    }


async def _removed(call: Call) -> list[Mapping[str, Any]]:
    engine = call.supervisor.view(call.id).instance.engine
    lacking = f"cannot do this with {call.id}: its engine {engine} removes no files"
    answer = await _command(call, "removed", lacking=lacking, timeout=LIST_TIMEOUT)
    rows = answer.get("removed")
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise EngineError(f"cannot list the removed files of {call.id}: the worker sent no list")
    return rows


async def _command(
    call: Call,
    name: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    lacking: str = "",
    timeout: float,
    alone: bool = False,
) -> Mapping[str, Any]:
    """The engine's refusal becomes an error of the request. `lacking`: the error if the engine has
    no such command; "" = it has it, so `invalid_request` is about the arguments."""
    try:
        return await call.supervisor.asking.command(
            call.id, name, arguments or {}, timeout=timeout, alone=alone
        )
    except (EngineError, InvalidRequest) as error:
        if error.code == "busy":
            raise TryLater(str(error), code="busy") from error
        if error.code == "invalid_request":
            if lacking:
                raise Refused(lacking, code="not_supported") from error
            raise InvalidRequest(str(error), field="body") from error
        if error.code == "not_supported" or error.code in _STATES:
            raise Refused(str(error), code=error.code) from error
        raise
