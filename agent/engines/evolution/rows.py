"""Reads the server's list: in 2.x its database, in 1.8 nested rows with the live state."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.core.words import RemoteSession
from agent.engines.raw import inside, moment, text, whole
from agent.engines.remote.answers import can_be_asked_for

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
    proxy: str = ""
    """The mark of its own proxy; "" = none."""
    live: bool = False
    """1.8: the status is the live state of the process."""


@dataclass(frozen=True, slots=True)
class Rows:
    """One list, by name."""

    by_name: Mapping[str, Row]
    old: bool
    """Its rows are nested as in 1.8."""
    left_out: tuple[str, ...] = ()
    """Names that no request can hold."""

    def sessions(self) -> list[RemoteSession]:
        return [RemoteSession(row.name, row.status, row.account) for row in self.by_name.values()]


def read_rows(body: Any) -> Rows | None:
    """None where the body is no list. Unreadable rows are left out."""
    if isinstance(body, Mapping) and "instance" in body:
        body = [body]  # 1.8 with a key that knows one session only
    if not isinstance(body, list):
        return None
    old = any(isinstance(raw, Mapping) and "instance" in raw for raw in body)
    rows = [row for row in map(_old_row if old else _row, body) if row is not None]
    good = {row.name: row for row in rows if can_be_asked_for(row.name)}
    return Rows(good, old, tuple(row.name for row in rows if row.name not in good))


def account_of(jid: object) -> str:
    """The number in a JID, without its device; "" for an id that is no number."""
    if isinstance(jid, str) and jid.endswith("@lid"):
        return ""
    return jid.split("@")[0].split(":")[0][:40] if isinstance(jid, str) else ""


def mark_proxy(raw: Any) -> str:
    """Equal for equal proxies, and tells nothing of its password; "" = none is switched on."""
    if inside(raw, "enabled") is not True:
        return ""
    proxy = raw.get("proxy", raw)  # 1.8 nests it
    if isinstance(proxy, Mapping):
        keys = ("protocol", "host", "port", "username", "password")
        proxy = [proxy.get(key) for key in keys]
    return hashlib.sha256(json.dumps(proxy).encode()).hexdigest()[:16]


def _row(raw: Any) -> Row | None:
    if not (name := text(inside(raw, "name"))):
        return None
    return Row(
        name=name,
        status=text(raw.get("connectionStatus")),
        account=account_of(raw.get("ownerJid")),
        code=whole(raw.get("disconnectionReasonCode")),
        text=_words_of_end(raw.get("disconnectionObject")),
        closed_wall=moment(raw.get("disconnectionAt")),
        updated_wall=moment(raw.get("updatedAt")),
        integration=text(raw.get("integration")),
        proxy=mark_proxy(raw.get("Proxy")),
    )


def _old_row(raw: Any) -> Row | None:
    session = inside(raw, "instance")
    if not (name := text(inside(session, "instanceName"))):
        return None
    return Row(name, text(session.get("status")), account_of(session.get("owner")), live=True)


def _words_of_end(raw: Any) -> str:
    """The message in Baileys' last disconnect, which the server keeps as JSON in a string."""
    try:
        end = json.loads(raw) if isinstance(raw, str) else None
    except (ValueError, RecursionError):
        return ""
    return text(inside(end, "error", "output", "payload", "message"))
