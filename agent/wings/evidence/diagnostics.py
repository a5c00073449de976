"""An engine's evidence of failed starts: notes and pictures in the session's folder.

The worker writes them, so they are not trusted: no link is followed, sizes are bounded, and a
picture is one only by its first bytes.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.model import InstanceId
from agent.errors import NotFound, VaultError
from agent.redaction import redact
from agent.vault.folder import SESSION, Folder, open_instance

FOLDER = "diagnostics"
NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z")
MOST = 20
"""An engine keeps a few; further files are not listed."""
_LARGEST_NOTE = 256 << 10


@dataclass(frozen=True, slots=True)
class FailedStart:
    name: str
    """The time of the failure, as the engine named its files."""
    seen: dict[str, Any]
    picture: bool


def list_failed_starts(root: Path, id: InstanceId) -> list[FailedStart]:
    """Newest first; empty where the engine kept none."""
    try:
        with open_instance(root, id, SESSION, FOLDER) as folder:
            names = set(folder.names())
            notes = sorted((name for name in names if _is_note(name)), reverse=True)[:MOST]
            return [
                FailedStart(
                    stem := name.removesuffix(".json"),
                    _read_note(folder, name),
                    f"{stem}.jpg" in names,
                )
                for name in notes
            ]
    except VaultError:
        return []


def read_picture(root: Path, id: InstanceId, name: str) -> bytes:
    if NAME.fullmatch(name):
        try:
            with open_instance(root, id, SESSION, FOLDER) as folder:
                content = folder.content(f"{name}.jpg")
        except VaultError:
            content = b""
        if content.startswith(b"\xff\xd8\xff"):
            return content
    raise NotFound(f"cannot show the picture {name} of {id}: there is none")


def _is_note(name: str) -> bool:
    return name.endswith(".json") and NAME.fullmatch(name.removesuffix(".json")) is not None


def _read_note(folder: Folder, name: str) -> dict[str, Any]:
    try:
        content = folder.content(name)
        note = json.loads(redact(content[:_LARGEST_NOTE].decode(errors="replace")))
    except (VaultError, ValueError, RecursionError):
        return {"why": f"{name} cannot be read"}
    return note if isinstance(note, dict) else {"why": f"{name} is no JSON object"}
