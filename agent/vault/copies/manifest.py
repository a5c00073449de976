"""The manifest of a snapshot or an archive: its session, time, reason, and every file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, ValidationError, convert

from agent.core.model import InstanceId, SessionFiles, parse_instance_id
from agent.errors import InvalidRequest, VaultError
from agent.vault.identity import by_name
from agent.vault.tree import Listing
from agent.vault.walk import DEEPEST

FILE = "manifest.json"
HEAD = {"format": "wa-agent session", "version": 1, "consistent": True}
_NO_MANIFEST = (ValueError, OverflowError, RecursionError, AttributeError)
LONGEST_PATH = 1024
LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class Manifest:
    id: InstanceId
    engine: Annotated[str, Meta(min_length=1, max_length=64)]
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
    content = by_name(manifest) | HEAD
    content |= {"settings": dict(manifest.settings), **asdict(content.pop("listing"))}
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def parse_manifest(raw: bytes, path: Path) -> Manifest:
    """The manifest, all fields checked; VaultError with code `damaged` otherwise."""
    try:
        # By json: the names of files may have bytes that are no UTF-8, which msgspec refuses.
        content = json.loads(raw)
        for key, known in HEAD.items():
            if (found := content.get(key)) != known:
                raise ValueError(f"its {key} is {found!r:.40}, this program knows {known!r}")
        listing = {key: content.pop(key, None) for key in ("files", "folders")}
        manifest = convert({**content, "listing": listing}, Manifest)
        parse_instance_id(manifest.id)
        _check_tree(manifest.listing)
    except (*_NO_MANIFEST, ValidationError, InvalidRequest) as error:
        raise VaultError(f"cannot use {path}: {error}", code="damaged") from None
    return manifest


def check_path(path: str) -> str:
    """A relative path that stays below any folder."""
    if not 0 < len(path) <= LONGEST_PATH or "\0" in path:
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
    is_folder = {"": True}
    kinds = ((listing.folders, True), ([file.path for file in listing.files], False))
    for paths, folders in kinds:
        for path in map(check_path, paths):
            if path in is_folder:
                raise ValueError(f"a path is listed twice: {path!r:.80}")
            if not is_folder.get(path.rpartition("/")[0]):
                raise ValueError(f"a path is listed without its folder: {path!r:.80}")
            is_folder[path] = folders
