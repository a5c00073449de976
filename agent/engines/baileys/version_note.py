"""The version of WhatsApp Web that connected last, in a file beside the keys."""

import json
import logging
from pathlib import Path

from agent.files import write_whole

log = logging.getLogger(__name__)

NOTE = "baileys.json"


def read_version(folder: Path) -> str:
    """\"\" = none is noted."""
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    version = note.get("version") if isinstance(note, dict) else None
    return version if isinstance(version, str) else ""


def note_version(folder: Path, version: str) -> None:
    """Not worth a failure: it only helps after WhatsApp refuses a newer version."""
    if read_version(folder) == version:
        return
    try:
        write_whole(folder / NOTE, json.dumps({"version": version}).encode())
    except OSError as error:
        log.info("cannot note the version that connected: %s", error)
