"""One field of a message that came over the link: checked, or a LinkError that names it. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from agent.core.words import InstanceId, parse_instance_id
from agent.errors import InvalidRequest, LinkError

_CODE = re.compile(r"[a-z0-9_]{0,64}")
_MOST_CODES = 8
_NUMBER_LIMIT = 2**53


def wrong(key: str, why: str) -> LinkError:
    return LinkError(f"cannot accept a message: {key} is {why}", field=key, code="malformed")


def id_in(message: Mapping[str, Any]) -> InstanceId:
    try:
        return parse_instance_id(message.get("id"))
    except InvalidRequest as error:
        raise wrong("id", "not an instance id") from error


def text_in(message: Mapping[str, Any], key: str, limit: int, default: str | None = None) -> str:
    value = message.get(key, default)
    if not isinstance(value, str):
        raise wrong(key, "not text")
    # Control characters would reach terminals and logs.
    shown = value[:limit]
    return shown if shown.isprintable() else "".join(c if c.isprintable() else " " for c in shown)


def code_in(message: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = message.get(key, default)
    if not isinstance(value, str) or not _CODE.fullmatch(value):
        raise wrong(key, "not a short code")
    return value


def codes_in(message: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = message.get(key, ())
    if not isinstance(value, list | tuple) or len(value) > _MOST_CODES:
        raise wrong(key, "not a short list")
    if not all(isinstance(code, str) and _CODE.fullmatch(code) for code in value):
        raise wrong(key, "not a list of short codes")
    return tuple(value)


def truth_in(message: Mapping[str, Any], key: str) -> bool:
    value = message.get(key, False)
    if not isinstance(value, bool):
        raise wrong(key, "neither true nor false")
    return value


def whole_in(message: Mapping[str, Any], key: str) -> int:
    value = message.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _NUMBER_LIMIT:
        raise wrong(key, "not a whole number")
    return value


def number_in(message: Mapping[str, Any], key: str) -> float | None:
    value = message.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > _NUMBER_LIMIT:
        raise wrong(key, "not a number")
    return float(value)


def seconds_in(message: Mapping[str, Any], key: str) -> float | None:
    value = number_in(message, key)
    if value is not None and value < 0:
        raise wrong(key, "negative")
    return value


def object_in(message: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = message.get(key)
    if not isinstance(value, dict):
        raise wrong(key, "not an object")
    return value
