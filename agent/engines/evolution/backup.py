"""Row, settings and webhook of a session that is deleted on the server, kept on this disk: one
folder per deletion, with a manifest. The files have the session's token: mode 0600."""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.engines.remote.answers import segment
from agent.errors import EngineError
from agent.files import write_whole

_INSTANCE = "instance.json"
_MANIFEST = "manifest.json"
_DONE = "given-back"
_REMOVAL = "removal-asked"
_AGAIN = "to-be-created-again"
_MADE = "made"
"""Beside the backups: one file for each session that the agent made."""
_KEPT = 10
"""Backups of one session that were given back: an outage of a day renews it 50 times."""


def write(folder: Path, name: str, session: Mapping[str, Any]) -> None:
    """Write `session` and read it again; EngineError where that fails, so delete nothing."""
    try:
        _write_all(_new_folder(folder / _folder_name(name)), name, session)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "what was written cannot be read again"
        raise EngineError(f"cannot back up {name}: {why}", code="backup_failed") from error


def unfinished(folder: Path, name: str) -> Path | None:
    """The newest backup, unless `finish` has marked it as given back."""
    manifests = (folder / _folder_name(name)).glob(f"*/{_MANIFEST}")
    newest = max((manifest.parent for manifest in manifests), default=None)
    return newest if newest is not None and not (newest / _DONE).exists() else None


def read(backup: Path) -> dict[str, Any]:
    try:
        session = json.loads((backup / _INSTANCE).read_text())
    except (OSError, ValueError):
        return {}
    return session if isinstance(session, dict) else {}


def owes_creation(folder: Path, name: str) -> bool:
    """Whether the agent deleted the session in order to create it again, and did not come to it."""
    backup = unfinished(folder, name)
    return backup is not None and (backup / _AGAIN).exists()


def was_made(folder: Path, name: str) -> bool:
    return (folder.with_name(_MADE) / _folder_name(name)).exists()


def note_made(folder: Path, name: str) -> None:
    """The agent is about to make the session on the server, where there is none of that name."""
    mark = folder.with_name(_MADE) / _folder_name(name)
    try:
        mark.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(mark, b"")
    except OSError as error:
        raise EngineError(
            f"cannot note the creation of {name}: {error.strerror}", code="backup_failed"
        ) from error


def note_removal(backup: Path, *, again: bool) -> None:
    """Before the server is asked to delete the session: what it shows from then on may be the half
    of a session. `again`: the agent means to create it again."""
    try:
        write_whole(backup / _REMOVAL, b"")
        if again:
            write_whole(backup / _AGAIN, b"")
    except OSError as error:
        raise EngineError(
            f"cannot note the removal in {backup.name}: {error.strerror}", code="backup_failed"
        ) from error


def removal_asked(backup: Path) -> float:
    """Seconds since the server was last asked to delete it; infinite = never."""
    try:
        return max(0.0, time.time() - (backup / _REMOVAL).stat().st_mtime)
    except OSError:
        return float("inf")


def finish(backup: Path) -> None:
    """Mark the folder as given back: the next creation is a new one. Of those that were given back
    the newest stay."""
    try:
        write_whole(backup / _DONE, b"")
        given_back = sorted(mark.parent for mark in backup.parent.glob(f"*/{_DONE}"))
        for folder in given_back[:-_KEPT]:
            shutil.rmtree(folder)
    except OSError as error:
        raise EngineError(
            f"cannot note that {backup.name} was given back: {error.strerror}", code="backup_failed"
        ) from error


def _new_folder(parent: Path) -> Path:
    """Named by the time; those of one second are numbered, and the newest has the last name."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    newest = max((folder.name for folder in parent.glob(f"{stamp}*")), default="")
    number = int(newest[len(stamp) + 1 :] or 1) + 1 if newest else 1
    folder = parent / (stamp if number == 1 else f"{stamp}-{number:04}")
    folder.mkdir(parents=True, mode=0o700)
    return folder


def _write_all(folder: Path, name: str, session: Mapping[str, Any]) -> None:
    content = json.dumps(session).encode()
    write_whole(folder / _INSTANCE, content)
    if json.loads((folder / _INSTANCE).read_bytes()) != session:
        raise ValueError("it reads differently")
    manifest = {
        "version": 1,
        "remote": name,
        "kept_wall": time.time(),
        "files": {
            _INSTANCE: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        },
        "parts": sorted(key for key, value in session.items() if value),
    }
    write_whole(folder / _MANIFEST, json.dumps(manifest, indent=2).encode())


def _folder_name(name: str) -> str:
    quoted = segment(name)
    if len(quoted) <= 120:
        return quoted
    return f"{quoted[:100]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
