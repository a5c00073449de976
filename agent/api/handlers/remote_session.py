"""What a session on a backend has over there: files that a repair put aside, settings, an end."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from agent.api.handlers.command import command
from agent.api.http.call import Call
from agent.api.http.envelope import json_answer
from agent.api.http.fields import OBJECT, Field
from agent.api.present import show_instance
from agent.core.event_json import wall_text
from agent.core.model import Instance
from agent.errors import EngineError, NotFound

CHANGE = (Field("settings", OBJECT, "settings to change; the others keep their values", True),)

SETTINGS_TIMEOUT = 60.0
LIST_TIMEOUT = 30.0
LONG_TIMEOUT = 150.0
"""A session goes down, and with a restore comes up again, before such an answer."""


async def list_removed(call: Call) -> web.Response:
    """Newest first."""
    found = await _removed(call)
    return json_answer({"removed": [show_removed(one) for one in reversed(found)]})


async def restore_removed(call: Call) -> web.Response:
    """The session is down meanwhile; what is in the way there is put aside itself."""
    await call.body()
    name = call.request.match_info["removed"]
    found = [one for one in await _removed(call) if one.get("name") == name]
    if not found:
        raise NotFound(
            f"cannot put back {name}: no repair of {call.id} removed files under that name",
            field="name",
        )
    await command(
        call,
        "restore_removed",
        {"name": name},
        lacking=_lacking(call, "removes no files, so it puts none back"),
        timeout=LONG_TIMEOUT,
        alone=True,
        known=True,
    )
    view = call.supervisor.view(call.id)
    return json_answer({"removed": show_removed(found[0]), "instance": show_instance(view)})


async def show_settings(call: Call) -> web.Response:
    return json_answer({"settings": await _settings(call, {}, known=False)})


async def change_settings(call: Call) -> web.Response:
    """Read first: an engine without settings says so, and not that these ones are wrong."""
    body = await call.body()
    await _settings(call, {}, known=False)
    return json_answer({"settings": await _settings(call, body["settings"], known=True)})


async def delete_there(call: Call, instance: Instance) -> None:
    lacking = (
        f"cannot delete {instance.remote} on backend {instance.backend}: engine"
        f" {instance.engine} cannot; delete it on the server, and here without remote"
    )
    await command(call, "delete", lacking=lacking, timeout=LONG_TIMEOUT, alone=True)


def show_removed(one: Mapping[str, Any]) -> dict[str, Any]:
    at = one.get("at")
    return {
        "name": one.get("name"),
        "removed": wall_text(float(at)) if isinstance(at, int | float) else None,
        "why": one.get("why"),
        "state": one.get("state"),
        "files": one.get("files"),
        "keys": one.get("keys"),
        "whole": one.get("whole"),
    }


async def _removed(call: Call) -> list[Mapping[str, Any]]:
    lacking = _lacking(call, "removes no files")
    answer = await command(call, "removed", lacking=lacking, timeout=LIST_TIMEOUT)
    found = answer.get("removed")
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise EngineError(f"cannot list the removed files of {call.id}: the worker sent no list")
    return found


async def _settings(call: Call, changes: Mapping[str, Any], *, known: bool) -> Mapping[str, Any]:
    lacking = _lacking(call, "has no settings on its server")
    answer = await command(
        call, "settings", changes, lacking=lacking, timeout=SETTINGS_TIMEOUT, known=known
    )
    found = answer.get("settings")
    if not isinstance(found, Mapping):
        raise EngineError(
            f"cannot show the settings of {call.id} on its server: the worker sent none"
        )
    return dict(found)


def _lacking(call: Call, what: str) -> str:
    engine = call.supervisor.view(call.id).instance.engine
    return f"cannot do this with {call.id}: its engine {engine} {what}"
