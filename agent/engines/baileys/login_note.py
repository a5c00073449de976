"""What connected last, in a file beside the keys: the version of WhatsApp Web, the account, and a
mark of the credentials that WhatsApp took."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.engines.baileys.creds import CREDS, account_of, fixed_mark, fixed_marks
from agent.files import open_plain, write_whole

log = logging.getLogger(__name__)

NOTE = "baileys.json"


def read_version(folder: Path) -> str:
    """\"\" = none is noted."""
    return _text(_read(folder / NOTE), "version")


def read_mark(folder: Path) -> tuple[str, str]:
    """The mark of the credentials that WhatsApp took last, and their account; \"\" = none is
    noted."""
    note = _read(folder / NOTE)
    return _text(note, "creds"), _text(note, "account")


def changed_fields(folder: Path, creds: Mapping[str, Any]) -> str:
    """Those that differ from what WhatsApp took last; \"\" = the note does not tell."""
    noted = _read(folder / NOTE).get("fields")
    if not isinstance(noted, dict):
        return ""
    return ", ".join(name for name, mark in fixed_marks(creds).items() if noted.get(name) != mark)


def note_login(folder: Path, version: str) -> None:
    creds = _read(folder / CREDS)
    mark, fields = (fixed_mark(creds), fixed_marks(creds)) if creds else ("", {})
    account = account_of(creds)
    _note(folder, {"version": version, "creds": mark, "account": account, "fields": fields})


def forget_creds(folder: Path) -> None:
    """A new device was linked: the next login makes its mark."""
    _note(folder, {"version": read_version(folder)})


def _note(folder: Path, note: dict[str, Any]) -> None:
    """Not worth a failure: it only helps a later login."""
    note = {key: value for key, value in note.items() if value}
    if _read(folder / NOTE) == note:
        return
    try:
        write_whole(folder / NOTE, json.dumps(note).encode())
    except OSError as error:
        log.info("cannot note what connected: %s", error)


def _read(path: Path) -> dict[str, Any]:
    try:
        with open_plain(path) as file:
            content = json.load(file)
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _text(note: dict[str, Any], key: str) -> str:
    value = note.get(key)
    return value if isinstance(value, str) else ""
