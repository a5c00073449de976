"""The engine's own files beside the profile: a note, known pages, diagnostics."""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.engines.web.files import NOTE
from agent.engines.web.settings import KNOWN_GOOD, LIVE
from agent.errors import EngineError
from agent.files import write_whole

_PAGES, _DIAGNOSTICS = "pages", "diagnostics"
_PAGES_KEPT, _DIAGNOSTICS_KEPT = 2, 3
_PAGE_LIMIT = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Note:
    """What must outlive the worker and is not the browser's."""

    paired: bool = False
    account: str = ""
    page: str = ""
    """The version of the last page that connected."""
    device: str = ""
    """Drawn at the first connection of a pairing: the same in each copy of this session."""


def read_note(session: Path) -> Note:
    """A note that cannot be read is an empty one: nothing in it is needed to connect."""
    try:
        raw = json.loads((session / NOTE).read_bytes())
        account, page, device = raw["account"], raw["page"], raw.get("device", "")
        return Note(raw["paired"] is True, str(account)[:40], str(page)[:40], str(device)[:40])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Note()


def write_note(session: Path, note: Note) -> None:
    write_whole(session / NOTE, json.dumps({"version": 1, **asdict(note)}).encode())


def keep_page(session: Path, version: str, document: str) -> None:
    """Remember the document that connected; the oldest of more than two goes."""
    if not re.fullmatch(r"[0-9][0-9A-Za-z.-]{0,39}", version) or not document:
        return
    folder = session / _PAGES
    folder.mkdir(mode=0o700, exist_ok=True)
    write_whole(folder / f"{version}.html", document.encode())
    _keep_newest(folder, "*.html", _PAGES_KEPT)


def read_page(session: Path, wanted: str, note: Note) -> str | None:
    """The pinned document; None: the live one. EngineError when a named version is not there."""
    version = note.page if wanted == KNOWN_GOOD else wanted
    if wanted == LIVE or not version:
        return None
    path = session / _PAGES / f"{version}.html"
    try:
        with path.open("rb") as file:
            return file.read(_PAGE_LIMIT).decode()
    except (OSError, ValueError) as error:
        if wanted == KNOWN_GOOD:
            return None
        raise EngineError(
            f"cannot use page version {version}: there is no {path}", code="page_missing"
        ) from error


def keep_diagnostics(session: Path, facts: Mapping[str, Any], picture: bytes | None) -> Path:
    """Leave what was seen of a failed start; never a code, never a message."""
    folder = session / _DIAGNOSTICS
    folder.mkdir(mode=0o700, exist_ok=True)
    name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = folder / f"{name}.json"
    write_whole(path, json.dumps(dict(facts), indent=1).encode())
    if picture is not None:
        write_whole(folder / f"{name}.jpg", picture)
    for kind in ("*.json", "*.jpg"):
        _keep_newest(folder, kind, _DIAGNOSTICS_KEPT)
    return path


def _keep_newest(folder: Path, pattern: str, count: int) -> None:
    files = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns)
    for path in files[:-count]:
        path.unlink(missing_ok=True)
