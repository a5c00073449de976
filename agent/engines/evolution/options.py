"""A session's settings on the server: all are sent at once, unnamed ones as they are."""

from collections.abc import Mapping
from typing import Any

from agent.engines.evolution.api import EvolutionApi
from agent.engines.raw import inside
from agent.errors import InvalidRequest

OPTIONS: Mapping[str, str] = {
    "rejectCall": "reject_call",
    "msgCall": "msg_call",
    "groupsIgnore": "groups_ignore",
    "alwaysOnline": "always_online",
    "readMessages": "read_messages",
    "readStatus": "read_status",
    "syncFullHistory": "sync_full_history",
}
"""The settings of both versions, by 2.x's name: 1.8's name."""
_TEXT = "msgCall"
_TOKEN = "wavoipToken"


async def read_or_change(
    api: EvolutionApi, name: str, changes: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Make `changes`, if any, and answer with all settings, by 2.x's names."""
    _check(changes)
    body = whole_body(await api.find("settings", name), changes, api.old)
    if changes:
        await api.set("settings", name, body)
    return {"settings": {option: body[_theirs(option, api.old)] for option in OPTIONS}}


def whole_body(raw: Any, changes: Mapping[str, Any], old: bool) -> dict[str, Any]:
    """All settings by the server's own names, with `changes`."""
    nested = inside(raw, "settings")
    raw = nested if isinstance(nested, Mapping) else raw
    body: dict[str, Any] = {}
    for name in OPTIONS:
        theirs = _theirs(name, old)
        value = inside(raw, theirs)
        unset = "" if name == _TEXT else False
        body[theirs] = changes.get(name, unset if value is None else value)
    token = inside(raw, _TOKEN)
    if old or token:
        # 1.8.6 refuses a change without it, and takes an empty one.
        body[_TOKEN] = token if isinstance(token, str) else ""
    return body


def _theirs(name: str, old: bool) -> str:
    return OPTIONS[name] if old else name


def _check(changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        if name not in OPTIONS:
            raise InvalidRequest(
                f"cannot set {name!r:.40}: unknown, known are {', '.join(OPTIONS)}", field=name[:40]
            )
        if not isinstance(value, str if name == _TEXT else bool):
            kind = "text" if name == _TEXT else "true or false"
            raise InvalidRequest(f"cannot set {name}: it must be {kind}", field=name)
