"""An engine's evidence of failed starts: notes and pictures in the session's folder.

The worker writes them, so they are not trusted: no link is followed, sizes are bounded, and a
picture is one only by its first bytes.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.model import InstanceId
from agent.errors import NotFound, VaultError
from agent.redaction import redact
from agent.vault.atomic import read_plain_file
from agent.vault.locate import SESSION, names_in, open_folder, open_instance

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
        with _open(root, id) as (path, fd):
            names = set(names_in(fd))
            notes = sorted((name for name in names if _is_note(name)), reverse=True)[:MOST]
            return [
                FailedStart(
                    stem := name.removesuffix(".json"),
                    _read_note(path, fd, name),
                    f"{stem}.jpg" in names,
                )
                for name in notes
            ]
    except VaultError:
        return []


def read_picture(root: Path, id: InstanceId, name: str) -> bytes:
    if NAME.fullmatch(name):
        try:
            with _open(root, id) as (path, fd):
                content = read_plain_file(path, fd, f"{name}.jpg")
        except VaultError:
            content = b""
        if content.startswith(b"\xff\xd8\xff"):
            return content
    raise NotFound(f"cannot show the picture {name} of {id}: there is none")


@contextmanager
def _open(root: Path, id: InstanceId) -> Iterator[tuple[Path, int]]:
    session = root / id / SESSION
    with (
        open_instance(root, id) as instance_fd,
        open_folder(session, SESSION, instance_fd) as session_fd,
        open_folder(session / FOLDER, FOLDER, session_fd) as fd,
    ):
        yield session / FOLDER, fd


def _is_note(name: str) -> bool:
    return name.endswith(".json") and NAME.fullmatch(name.removesuffix(".json")) is not None


def _read_note(folder: Path, fd: int, name: str) -> dict[str, Any]:
    try:
        content = read_plain_file(folder, fd, name)
        note = json.loads(redact(content[:_LARGEST_NOTE].decode(errors="replace")))
    except (VaultError, ValueError, RecursionError):
        return {"why": f"{name} cannot be read"}
    return note if isinstance(note, dict) else {"why": f"{name} is no JSON object"}
