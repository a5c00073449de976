"""Baileys' multi-file folders: plain bots, Evolution API 1.8 (instances/), WAHA's NOWEB."""

import os
from collections.abc import Iterator
from pathlib import Path

from agent.engines.baileys.files import MOST_KEYS, SIZE_LIMIT, read_key_file
from agent.errors import Refused
from agent.vault.archives.found import FoundSession
from agent.wings.moving.session import Keys, kind_of, look_at, unreadable
from agent.wings.moving.users import just_written, used_by, user_of_folder

_DEPTH = 4
"""Levels below the named folder that are looked through."""


def find_in_folder(path: Path) -> list[FoundSession]:
    """Every folder with credentials at `path` or below it."""
    return [_look_at(folder) for folder in folders_in(path)]


def folders_in(path: Path) -> Iterator[Path]:
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


def _look_at(folder: Path) -> FoundSession:
    program = program_of(folder)
    # WAHA keeps the keys of NAME in NAME/auth.
    named = folder.parent if program == "WAHA" and folder.name == "auth" else folder
    name = named.resolve().name
    try:
        creds = (folder / "creds.json").stat().st_mtime
        written = max([creds, *(file.stat().st_mtime for file in key_files(folder))])
        in_use = used_by(user_of_folder(folder)) or just_written(written)
    except OSError as error:
        return unreadable(program, name, error)
    return look_at(program, name, lambda: read_folder(folder), written=written, in_use=in_use)


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
    for file in key_files(folder):
        key = file.name.removesuffix(".json")
        size += file.stat(follow_symlinks=False).st_size
        if size > SIZE_LIMIT or len(keys) >= MOST_KEYS:
            raise Refused("it is larger than any session", code="too_large")
        keys[key] = read_key_file(Path(file.path))
    return keys


def key_files(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Links, folders and what a bot keeps beside its keys are no part of a session."""
    with os.scandir(folder) as entries:
        for entry in entries:
            key, dot, kind = entry.name.rpartition(".")
            if dot and kind == "json" and kind_of(key) and entry.is_file(follow_symlinks=False):
                yield entry
