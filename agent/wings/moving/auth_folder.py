"""Export a session as a plain Baileys bot's folder: files only, nothing runs.

`useMultiFileAuthState` has one JSON file per key in one folder, as this engine's store, so a move
back needs no scan. agent.wings.moving imports such folders. Only one of the two may run.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from agent.engines.baileys.creds import CREDS
from agent.engines.baileys.files import (
    KEY_KINDS,
    MOST_KEYS,
    SIZE_LIMIT,
    read_key_file,
)
from agent.errors import Refused, VaultError
from agent.files import replace_folder

_KEY_FILE = re.compile(rf"({KEY_KINDS})\.json")


def export_auth_folder(session: Path, target: Path, name: str, *, replace: bool = False) -> Path:
    """Write `target`/`name` in the library's form; the folder made. `replace`: a folder of that
    name is moved aside, never deleted."""
    _check_pairing(session)
    folder = target / name
    if os.path.lexists(folder) and not replace:
        raise Refused(
            f"cannot export to {folder}: it exists; --force moves it aside", code="exists"
        )
    try:
        target.mkdir(parents=True, exist_ok=True)
        fresh = folder.with_name(f".{folder.name}.{os.getpid()}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        _copy(session, fresh)
        os.sync()  # once for a thousand small files
        replace_folder(fresh, folder)
    except OSError as error:
        raise VaultError(f"cannot write {folder}: {error}") from error
    return folder


def _check_pairing(folder: Path) -> None:
    path = folder / CREDS
    try:
        creds = json.loads(read_key_file(path))
    except (OSError, ValueError, RecursionError) as error:
        cause = (error.strerror if isinstance(error, OSError) else None) or "it is no JSON"
        raise Refused(f"cannot use {path}: {cause}", code="no_session") from error
    me = creds.get("me") if isinstance(creds, dict) else None
    if not isinstance(me, dict) or not me.get("id"):
        raise Refused(f"cannot use {path}: it holds no pairing", code="no_session")


def _keys(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            # Links, folders and a bot's other files are no part of a session.
            if entry.is_file(follow_symlinks=False) and _KEY_FILE.fullmatch(entry.name):
                yield entry.name


def _copy(source: Path, target: Path) -> int:
    """All keys, the credentials last: half a copy is no session."""
    names = sorted(_keys(source), key=lambda name: (name == CREDS, name))
    if len(names) > MOST_KEYS:
        raise VaultError(f"cannot copy {source}: more than {MOST_KEYS} files")
    size = 0
    try:
        for name in names:
            content = read_key_file(source / name)
            size += len(content)
            if size > SIZE_LIMIT:
                raise VaultError(f"cannot copy {source}: more than {SIZE_LIMIT} bytes")
            with (target / name).open("xb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(content)
    except FileExistsError as error:
        raise Refused(f"cannot export to {target}: {error.filename} exists") from error
    except OSError as error:
        raise VaultError(f"cannot copy {source}: {error}") from error
    return size
