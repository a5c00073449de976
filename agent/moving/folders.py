"""Baileys' multi-file folders: plain bots, Evolution API 1.8 (instances/), WAHA's NOWEB."""

import os
from collections.abc import Iterator
from pathlib import Path

from agent.engines.baileys.files import MOST_KEYS, SIZE_LIMIT, read_key_file
from agent.errors import InvalidRequest, Refused
from agent.moving.session import CREDS, FoundSession, Keys, look_at
from agent.moving.users import user_of_folder

_DEPTH = 4
"""Levels below the named folder that are looked through."""


def find_in_folder(path: Path) -> list[FoundSession]:
    """Every folder with credentials at `path` or below it."""
    return [_look_at(folder, path) for folder in _folders(path)]


def _folders(path: Path) -> Iterator[Path]:
    if (path / "creds.json").is_file():
        yield path
        return
    for parent, below, files in os.walk(path):
        here = Path(parent)
        below.sort()
        if "creds.json" in files:
            yield here
            below.clear()
        elif len(here.relative_to(path).parts) >= _DEPTH:
            below.clear()


def _look_at(folder: Path, source: Path) -> FoundSession:
    program = program_of(folder)
    # WAHA keeps the keys of NAME in NAME/auth.
    named = folder.parent if program == "WAHA" and folder.name == "auth" else folder
    try:
        written = (folder / "creds.json").stat().st_mtime
        user = user_of_folder(folder)
    except OSError as error:
        raise InvalidRequest(
            f"cannot read {source}: {error.strerror}", field="source", code="unreadable"
        ) from error
    name = named.resolve().name
    return look_at(program, name, lambda: read_folder(folder), written=written, user=user)


def program_of(folder: Path) -> str:
    parts = folder.resolve().parts
    if "noweb" in parts:
        return "WAHA"
    if parts[-2:-1] == ("instances",):
        return "Evolution API 1.8"
    return "Baileys"


def read_folder(folder: Path) -> Keys:
    """Each key's file, by its key. File names keep `__` and `-`: Baileys names them the same."""
    keys: dict[str, bytes] = {}
    size = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            key, dot, kind = entry.name.rpartition(".")
            # Links, folders and what a bot keeps beside its keys are no part of a session.
            if not dot or kind != "json" or not entry.is_file(follow_symlinks=False):
                continue
            try:
                content = read_key_file(Path(entry.path))
            except FileNotFoundError:
                raise Refused(
                    "it changes while it is read: stop its program", code="in_use"
                ) from None
            size += len(content)
            if size > SIZE_LIMIT or len(keys) >= MOST_KEYS:
                raise Refused("it is larger than any session", code="too_large")
            keys[CREDS if key == "creds" else key] = content
    return keys
