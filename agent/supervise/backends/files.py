"""The folder of one backend's worker: its settings, and the sessions that it watches.

The agent writes, the worker reads; `kept/` below it is the worker's own. It has secrets: only the
agent and the service's group may read the files.
"""

import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.core.model import InstanceId, parse_instance_id
from agent.errors import InvalidRequest, VaultError
from agent.vault.atomic import read_plain_file, write_atomically
from agent.vault.locate import make_folder, modes_of, open_folder, open_root

VERSION = 1
ABOUT = "backend.json"
ROSTER = "roster.json"
HOOK = "hook"
KEPT = "kept"

_HOOK = re.compile(r"[A-Za-z0-9_-]{32,64}")

Roster = Mapping[InstanceId, Mapping[str, Any]]
"""The sessions of its worker, each with its settings."""


def make_backend_folder(root: Path, name: InstanceId) -> None:
    with open_root(root, create=True) as root_fd:
        modes, path = modes_of(root_fd), root / parse_instance_id(name)
        if make_folder(path, name, root_fd, modes):
            os.fsync(root_fd)
        with open_folder(path, name, root_fd) as fd:
            make_folder(path / KEPT, KEPT, fd, modes)


def lay_out_backend(root: Path, name: InstanceId, engine: str, settings: Mapping[str, Any]) -> bool:
    """Make the folder and write the worker's settings; True: they are new."""
    about = {"version": VERSION, "name": name, "engine": engine, "settings": dict(settings)}
    make_backend_folder(root, name)
    path = root / name
    with open_root(root) as root_fd, open_folder(path, name, root_fd) as fd:
        if _read(path, fd, ABOUT) == about:
            return False
        _write(path, fd, ABOUT, about, root_fd)
        return True


def write_roster(root: Path, name: InstanceId, roster: Roster) -> None:
    content = {
        "version": VERSION,
        "sessions": {id: dict(settings) for id, settings in roster.items()},
    }
    with open_root(root) as root_fd, open_folder(root / name, name, root_fd) as fd:
        _write(root / name, fd, ROSTER, content, root_fd)


def read_roster(root: Path, name: InstanceId) -> dict[InstanceId, Mapping[str, Any]]:
    """The sessions that its worker should watch; none when that file is missing or damaged."""
    with open_root(root) as root_fd, open_folder(root / name, name, root_fd) as fd:
        raw = _read(root / name, fd, ROSTER)
    sessions = raw.get("sessions") if isinstance(raw, dict) else None
    if not isinstance(sessions, dict):
        return {}
    roster: dict[InstanceId, Mapping[str, Any]] = {}
    for text, settings in sessions.items():
        try:
            id = parse_instance_id(text)
        except InvalidRequest:
            continue
        if isinstance(settings, dict):
            roster[id] = settings
    return roster


def hook_secret(root: Path, name: InstanceId) -> str:
    """The secret part of the address that the server calls; made once, then kept."""
    with open_root(root, create=True) as root_fd:
        modes = modes_of(root_fd)
        if make_folder(root / parse_instance_id(name), name, root_fd, modes):
            os.fsync(root_fd)
        with open_folder(root / name, name, root_fd) as fd:
            try:
                kept = read_plain_file(root / name, fd, HOOK).decode(errors="replace").strip()
            except VaultError:
                kept = ""
            if _HOOK.fullmatch(kept):
                return kept
            made = secrets.token_urlsafe(32)
            write_atomically(root / name, fd, HOOK, made.encode() + b"\n", mode=0o600)
            return made


def _read(path: Path, fd: int, file: str) -> Any:
    try:
        return json.loads(read_plain_file(path, fd, file))
    except (VaultError, ValueError, RecursionError):
        return None


def _write(path: Path, fd: int, file: str, content: Mapping[str, Any], root_fd: int) -> None:
    modes = modes_of(root_fd)
    raw = json.dumps(content, indent=1).encode() + b"\n"
    write_atomically(path, fd, file, raw, mode=modes.file & 0o640, group=modes.group)
