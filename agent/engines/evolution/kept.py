"""Row, settings and webhook of a session that is deleted on the server, kept on our disk.

One folder for each deletion, with a manifest. The files hold the session's token: mode 0600.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.engines.remote.http import segment
from agent.errors import EngineError
from agent.files import write_whole

_INSTANCE = "instance.json"
_MANIFEST = "manifest.json"
_DONE = "given-back"


def keep(folder: Path, name: str, found: Mapping[str, Any]) -> Path:
    """Write `found` and read it again; EngineError where that fails, so delete nothing."""
    try:
        return _write_all(_new_place(folder / _folder_name(name)), name, found)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "what was written cannot be read again"
        raise EngineError(f"cannot keep what {name} was: {why}", code="backup_failed") from error


def unfinished(folder: Path, name: str) -> Path | None:
    """The newest folder, unless `finish` has marked it as given back."""
    places = sorted(each.parent for each in (folder / _folder_name(name)).glob(f"*/{_MANIFEST}"))
    return places[-1] if places and not (places[-1] / _DONE).exists() else None


def read(place: Path) -> dict[str, Any]:
    try:
        found = json.loads((place / _INSTANCE).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def finish(place: Path) -> None:
    """Mark the folder as given back: the next creation is a new one."""
    try:
        write_whole(place / _DONE, b"")
    except OSError as error:
        raise EngineError(
            f"cannot note that {place.name} was given back: {error.strerror}", code="backup_failed"
        ) from error


def _new_place(parent: Path) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    place, number = parent / stamp, 1
    while place.exists():
        number += 1
        place = parent / f"{stamp}-{number:04}"
    place.mkdir(parents=True, mode=0o700)
    return place


def _write_all(place: Path, name: str, found: Mapping[str, Any]) -> Path:
    text = json.dumps(found)
    write_whole(place / _INSTANCE, text.encode())
    if json.loads((place / _INSTANCE).read_text()) != found:
        raise ValueError("it reads differently")
    size, sha256 = len(text.encode()), hashlib.sha256(text.encode()).hexdigest()
    manifest = {
        "version": 1,
        "remote": name,
        "kept_wall": time.time(),
        "files": {_INSTANCE: {"bytes": size, "sha256": sha256}},
        "parts": sorted(key for key, value in found.items() if value),
    }
    write_whole(place / _MANIFEST, json.dumps(manifest, indent=2).encode())
    return place


def _folder_name(name: str) -> str:
    quoted = segment(name)
    if len(quoted) <= 120:
        return quoted
    return f"{quoted[:100]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
