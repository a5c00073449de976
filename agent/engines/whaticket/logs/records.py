"""One record of a server's logger: a JSON line of pino, or its pretty form."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from agent.core.findings.crypto_patterns import (
    CryptoFinding,
    CryptoPattern,
    Effect,
    is_loud,
    read_log_line,
)
from agent.engines.raw import text

LONGEST_LINE = 8192
LONGEST_RECORD = 256 << 10
"""A pino line with a stack in it; anything longer is read as text."""

PRETTY = re.compile(
    r"(?:\[[^\]]{5,40}\] )?(?P<level>TRACE|DEBUG|INFO|WARN|ERROR|FATAL)"
    r"(?: \[[^\]]{5,40}\])?(?: \([^)]{0,200}\))?: "
)
OBJECT = re.compile(r"\S.{0,200}: \{")
"""What Node prints of an object given to console.error: its fields follow, indented."""
_FIELD = re.compile(r"\s+\"?([A-Za-z]{1,30})\"?: (.*)")
_ERROR_FIELDS = ("error", "err", "reason", "cause", "stack")
_SESSION_FIELDS = ("sessionId", "whatsappId", "session", "id")


def record_in(line: str) -> dict[str, Any] | None:
    if len(line) >= LONGEST_RECORD or not line.endswith("}"):
        return None
    return parse_record(line)


def parse_record(line: str | bytes) -> dict[str, Any] | None:
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return raw if isinstance(raw, dict) else None


def read_pretty(lines: list[str]) -> dict[str, Any]:
    """The fields of a pretty-printed record as far as they name an error, a peer, a session."""
    record: dict[str, Any] = {"msg": PRETTY.sub("", lines[0], count=1)}
    if head := PRETTY.match(lines[0]):
        record["level"] = head["level"]
    inner: dict[str, dict[str, Any]] = {"key": {}, "err": {}}
    group = ""
    for line in lines[1:]:
        field = _FIELD.match(line)
        if field is None:
            continue
        depth = len(line) - len(line.lstrip())
        name, value = field[1], field[2].strip().rstrip(",").strip("\"'`")
        if depth <= 4:
            group = name if name in inner else ""
            if not group:
                record.setdefault(name, value)
        elif group and name not in inner[group]:
            inner[group][name] = value == "true" if value in ("true", "false") else value
    return {**record, **{name: fields for name, fields in inner.items() if fields}}


def finding_among(lines: list[str], own: Iterable[CryptoPattern] = ()) -> CryptoFinding | None:
    """The first of a printed object's lines that says anything of keys; a benign one only where no
    other does. Of its fields only the error's count: others may hold a contact's words."""
    if (loud := is_loud(lines[0])) is False:
        return None
    found = [read_log_line(lines[0], own)]
    names = (*_ERROR_FIELDS, "message") if loud else _ERROR_FIELDS
    inside = 0
    for line in lines[1:]:
        depth = len(line) - len(line.lstrip())
        inside = inside if depth > inside else 0
        if (field := _FIELD.match(line)) is None:
            continue
        if inside or field[1] in names:
            value = field[2].strip().rstrip(",").strip("\"'`")
            found.append(read_log_line(value, own, loud=True))
        if not inside and field[1] in _ERROR_FIELDS:
            inside = depth
    heard = [finding for finding in found if finding is not None]
    counted = [finding for finding in heard if finding.effect is not Effect.BENIGN]
    return next(iter(counted or heard), None)


def jids_of(record: Mapping[str, Any]) -> list[str]:
    """Whom the message came from, as far as that is certain, best first."""
    key = record.get("key")
    key = key if isinstance(key, Mapping) else {}
    names = ["participant", "participantAlt", "participantPn", "participantLid", "senderLid"]
    if not key.get("fromMe") and record.get("fromMe") not in (True, "true"):
        # The chat of an own message is the receiver, whose keys are another's.
        names += ["remoteJid", "remoteJidAlt", "senderPn"]
    jids = [_text(where, name) for where in (key, record) for name in names]
    jids += [_text(record, name) for name in ("sender", "author")]
    return [jid for jid in jids if jid]


def session_of(record: Mapping[str, Any]) -> str:
    for name in _SESSION_FIELDS:
        value = record.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value):
            return str(value)[:200]
    return ""


def message_of(record: Mapping[str, Any]) -> str:
    return _text(record, "msg")


def _text(raw: Mapping[str, Any], name: str) -> str:
    return text(raw.get(name), LONGEST_LINE)
