"""The manifest of a snapshot or an archive: its session, time, reason, and every file."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.core.model import InstanceId, SessionFiles, parse_instance_id
from agent.errors import InvalidRequest, VaultError
from agent.vault.identity import by_name
from agent.vault.tree import FileEntry, Listing
from agent.vault.walk import DEEPEST

FILE = "manifest.json"
FORMAT = "wa-agent session"
VERSION = 1
LONGEST_PATH = 1024
LONGEST_NAME = 255

_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "id": str,
    "engine": str,
    "settings": dict,
    "account": str,
    "paired": bool,
    "created_wall": (int, float),
    "lineage": str,
    "taken_wall": (int, float),
    "why": str,
    "state": str,
    "backup": bool,
    "consistent": bool,
    "files": list,
    "folders": list,
}


@dataclass(frozen=True, slots=True)
class Manifest:
    id: InstanceId
    engine: str
    account: str
    paired: bool
    taken_wall: float
    why: str
    state: SessionFiles
    """What the check of the copied files found."""
    listing: Listing
    settings: Mapping[str, Any] = field(default_factory=dict)
    created_wall: float = 0.0
    lineage: str = ""
    """Which folder of that name it is of: a new session of that name has another lineage."""
    backup: bool = False
    """Made because of a fault: evidence, to which no repair goes back."""
    needs_passkey: bool = False
    """Its account needs a passkey to link a device."""
    ended: str = ""
    """The final reason after which its worker may not log in by itself; "" = it may."""

    @property
    def good(self) -> bool:
        """A paired, whole session from before any fault."""
        return self.state is SessionFiles.WHOLE and not self.backup


def render_manifest(manifest: Manifest) -> bytes:
    content = by_name(manifest)
    listing: Listing = content.pop("listing")
    content |= {
        "format": FORMAT,
        "version": VERSION,
        "settings": dict(manifest.settings),
        "consistent": True,
        "files": [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in listing.files],
        "folders": list(listing.folders),
    }
    return json.dumps(content, indent=1).encode() + b"\n"


def parse_manifest(raw: bytes, path: Path) -> Manifest:
    """The manifest, all fields checked; VaultError with code `damaged` otherwise."""
    try:
        raw_manifest = json.loads(raw)
        problem = _find_problem(raw_manifest)
        if problem:
            raise ValueError(problem)
        as_written = ("engine", "account", "paired", "why", "settings", "lineage", "backup")
        return Manifest(
            **{key: raw_manifest[key] for key in as_written},
            id=parse_instance_id(raw_manifest["id"]),
            taken_wall=float(raw_manifest["taken_wall"]),
            created_wall=float(raw_manifest["created_wall"]),
            state=SessionFiles(raw_manifest["state"]),
            listing=_read_listing(raw_manifest["files"], raw_manifest["folders"]),
            needs_passkey=raw_manifest.get("needs_passkey") is True,  # older archives do not say
            ended=str(raw_manifest.get("ended", "")),
        )
    except (ValueError, OverflowError, RecursionError, InvalidRequest) as error:
        raise VaultError(f"cannot use {path}: {error}", code="damaged") from None


def _find_problem(raw: Any) -> str:
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        return f"it is no manifest of a {FORMAT}"
    version = raw.get("version")
    if version != VERSION or isinstance(version, bool):
        return f"its version is {version!r:.40}, this program knows {VERSION}"
    for key, kind in _KINDS.items():
        value = raw.get(key)
        is_number = isinstance(value, bool) and kind is not bool
        if not isinstance(value, kind) or is_number:
            return f"{key} is missing or of the wrong kind"
    if raw["consistent"] is not True:
        return "it is not of a consistent copy"
    return "" if 0 < len(raw["engine"]) <= 64 else "engine is empty or too long"


def _read_listing(files: list[Any], folders: list[Any]) -> Listing:
    read = []
    for file in files:
        if not isinstance(file, dict):
            raise ValueError("a file is not an object")  # noqa: TRY004 - all are one kind here
        size, sha256 = file.get("size"), file.get("sha256")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ValueError("a size is not a whole number")
        if not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
            raise ValueError("a checksum is not a SHA-256")
        read.append(FileEntry(check_path(file.get("path")), size, sha256))
    listing = Listing(tuple(read), tuple(check_path(folder) for folder in folders))
    _check_tree(listing)
    return listing


def check_path(path: Any) -> str:
    """A relative path that stays below any folder."""
    if not isinstance(path, str) or not 0 < len(path) <= LONGEST_PATH or "\0" in path:
        raise ValueError(f"a path is empty, too long or no text: {path!r:.80}")
    parts = path.split("/")
    if len(parts) > DEEPEST or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"a path leads out of its folder or nowhere: {path!r:.80}")
    try:
        longest = max(len(part.encode("utf-8", "surrogateescape")) for part in parts)
    except UnicodeEncodeError:
        raise ValueError(f"a path cannot be a file's name: {path!r:.80}") from None
    if longest > LONGEST_NAME:
        raise ValueError(f"a path has a name that is too long: {path!r:.80}")
    return path


def _check_tree(listing: Listing) -> None:
    """Each name once, and each parent is a listed folder that stands before its children."""
    folders: set[str] = set()
    for folder in listing.folders:
        parent = folder.rpartition("/")[0]
        if folder in folders or (parent and parent not in folders):
            raise ValueError(f"a folder is listed twice or without its parent: {folder!r:.80}")
        folders.add(folder)
    files: set[str] = set()
    for file in listing.files:
        parent = file.path.rpartition("/")[0]
        if file.path in files or file.path in folders:
            raise ValueError(f"a file is listed twice: {file.path!r:.80}")
        if parent and parent not in folders:
            raise ValueError(f"a file is listed without its folder: {file.path!r:.80}")
        files.add(file.path)
