"""Reads the server's list: in 2.x its database, in 1.8 nested rows with the live state."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent.engines.base import RemoteSession

FINAL = frozenset({401, 402, 403, 406})
"""WhatsApp's numbers after which the server itself deletes the keys."""


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    status: str
    """open, connecting or close."""
    account: str = ""
    """The number of its last pairing; the server keeps it through a logout."""
    code: int | None = None
    """WhatsApp's number at the last final close; no later success clears it."""
    text: str = ""
    """WhatsApp's own words at that close."""
    closed_wall: float = 0.0
    """When it closed, by the server's clock."""
    updated_wall: float = 0.0
    integration: str = ""
    live: bool = False
    """1.8: the status is the live state of the process."""


@dataclass(frozen=True, slots=True)
class Rows:
    """One list, by name."""

    by_name: Mapping[str, Row]
    old: bool
    """Its rows are nested as in 1.8."""

    def sessions(self) -> list[RemoteSession]:
        return [RemoteSession(row.name, row.status, row.account) for row in self.by_name.values()]


def read_rows(body: Any) -> Rows | None:
    """None where the body is no list. Unreadable rows are left out."""
    if isinstance(body, Mapping) and "instance" in body:
        body = [body]  # 1.8 with a key that knows one session only
    if not isinstance(body, list):
        return None
    old = any(isinstance(each, Mapping) and "instance" in each for each in body)
    found = (_old_row(each) if old else _row(each) for each in body)
    return Rows({row.name: row for row in found if row is not None}, old)


def account_of(jid: object) -> str:
    """The number in a JID, without its device."""
    return jid.split("@")[0].split(":")[0][:40] if isinstance(jid, str) else ""


def _row(told: Any) -> Row | None:
    if not isinstance(told, Mapping) or not (name := _word(told.get("name"))):
        return None
    code = told.get("disconnectionReasonCode")
    return Row(
        name=name,
        status=_word(told.get("connectionStatus")),
        account=account_of(told.get("ownerJid")),
        code=code if isinstance(code, int) and not isinstance(code, bool) else None,
        text=_text_of(told.get("disconnectionObject")),
        closed_wall=_time(told.get("disconnectionAt")),
        updated_wall=_time(told.get("updatedAt")),
        integration=_word(told.get("integration")),
    )


def _old_row(told: Any) -> Row | None:
    inner = told.get("instance") if isinstance(told, Mapping) else None
    if not isinstance(inner, Mapping) or not (name := _word(inner.get("instanceName"))):
        return None
    account = account_of(inner.get("owner"))
    return Row(name, _word(inner.get("status")), account, live=True)


def _text_of(end: Any) -> str:
    """The message in Baileys' last disconnect, which the server keeps as JSON in a string."""
    try:
        found = json.loads(end) if isinstance(end, str) else None
    except (ValueError, RecursionError):
        return ""
    for key in ("error", "output", "payload", "message"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return _word(found)


def _word(value: Any) -> str:
    return value[:200] if isinstance(value, str) else ""


def _time(value: Any) -> float:
    try:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else 0.0
    except (ValueError, OverflowError, OSError):
        return 0.0
