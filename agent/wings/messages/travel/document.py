"""A message as one machine of a fleet gives it to another."""

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from agent.core.model import InstanceId
from agent.errors import InvalidRequest
from agent.wings.messages.out.file import OutboxFiles
from agent.wings.messages.out.message import OutMessage
from agent.wings.messages.out.states import State
from agent.wings.messages.out.store import OutboxStore

_HERE = ("number", "instance", "file")
"""Fields that are of one machine."""


@dataclass(frozen=True, slots=True)
class Travelling:
    row: OutMessage
    content: tuple[str, str] = ("", "")
    """What it says as JSON, and its file as base64."""


async def content_of(store: OutboxStore, files: OutboxFiles, row: OutMessage) -> tuple[str, str]:
    message = await store.content(row.number)
    text = "" if message is None else json.dumps(message, separators=(",", ":"))
    if not row.file:
        return text, ""
    raw = await asyncio.to_thread(files.read, row.file)
    return text, base64.b64encode(raw).decode()


def document_of(travelling: Travelling) -> Mapping[str, Any]:
    row = travelling.row
    told = {field.name: getattr(row, field.name) for field in fields(row)}
    text, file = travelling.content
    own = {name: value for name, value in told.items() if name not in _HERE}
    return {**own, "state": row.state.value, "answer": dict(row.answer), "says": text, "file": file}


def read_document(raw: Any, instance: InstanceId) -> Travelling:
    """Of a machine of this version or a neighbour's: what is not known is left out."""
    try:
        known = {
            field.name: raw[field.name]
            for field in fields(OutMessage)
            if field.name not in _HERE
            and (field.name in raw or field.default is field.default_factory is MISSING)
        }
        for name, value in known.items():
            _check(name, value)
        state = State(known["state"])
        row = OutMessage(**{**known, "number": 0, "instance": instance, "state": state})
        return Travelling(row, (str(raw.get("says", "")), str(raw.get("file", ""))))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidRequest(
            f"cannot use a message of another machine: {type(error).__name__}", field="messages"
        ) from None


_NUMBERS = frozenset(
    {
        *("born", "accepted_wall", "expires_wall", "changed_wall", "tries", "begun_wall"),
        *("not_before_wall", "size"),
    }
)


def _check(name: str, value: Any) -> None:
    wanted: Any = (int, float) if name in _NUMBERS else dict if name == "answer" else str
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise TypeError(name)
