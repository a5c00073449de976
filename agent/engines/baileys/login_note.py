"""What connected last, in a file beside the keys: the version of WhatsApp Web, the account, and a
mark of the credentials that WhatsApp took."""

import json
import logging
from pathlib import Path
from typing import Any

from agent.engines.baileys.creds import CREDS, account_of, fixed_mark
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


def note_login(folder: Path, version: str) -> None:
    creds = _read(folder / CREDS)
    mark = fixed_mark(creds) if creds else ""
    _note(folder, {"version": version, "creds": mark, "account": account_of(creds)})


def forget_creds(folder: Path) -> None:
    """A new device was linked: the next login makes its mark."""
    _note(folder, {"version": read_version(folder)})


def _note(folder: Path, note: dict[str, str]) -> None:
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
