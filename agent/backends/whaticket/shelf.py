"""Removed keys: a file for each removal, kept for seven days. Blocking; runs in a thread.

The file has the records themselves, so it is whole before the first record goes: a removal that
was killed at any step can be put back.
"""

import base64
import hashlib
import json
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agent.backends.whaticket.contract import cannot, is_safe
from agent.errors import InvalidRequest
from agent.files import open_plain, write_whole

KEEP = 7 * 86400.0
LARGEST = 256 << 20
_NAME = re.compile(r"\d{8}T\d{6}Z(?:\.\d{1,4})?")
_FORMAT = "wa-agent removed keys 1"
_ROOM = 4096
"""Bytes of a removal without records, and of a record without its content."""


@dataclass(frozen=True, slots=True)
class Record:
    """One key as it was stored."""

    name: str
    """The file's, or the key's behind the session's prefix; not UTF-8: by `surrogateescape`."""
    content: bytes = field(repr=False)
    """The file's, or Redis' own form for RESTORE."""
    redis: bool = False
    mode: int = 0
    uid: int = 0
    gid: int = 0
    ttl: int = -1
    """Milliseconds left in Redis; -1 = for ever."""


@dataclass(frozen=True, slots=True)
class Removal:
    name: str
    remote: str
    """The server's id of the session."""
    why: str
    wall: float
    state: str
    """begun, done or put_back"""
    whole: bool
    """True if all keys of the session were taken."""
    records: tuple[Record, ...] = field(repr=False)

    def shown(self) -> dict[str, Any]:
        keys = sum(record.redis for record in self.records)
        told = {name: getattr(self, name) for name in ("name", "why", "state", "whole")}
        return told | {"at": self.wall, "files": len(self.records) - keys, "keys": keys}


@dataclass(frozen=True, slots=True)
class Shelf:
    """All removals of one backend."""

    root: Path

    def keep(self, remote: str, why: str, records: Sequence[Record], *, whole: bool) -> Removal:
        """Write them down and read them back."""
        wall = time.time()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall))
        names = (stamp, *(f"{stamp}.{number}" for number in range(2, 10_000)))
        name = next(name for name in names if not self._path(remote, name).exists())
        removal = Removal(name, remote, why[:200], wall, "begun", whole, tuple(records))
        self.write(removal)
        if _read(self._path(remote, name)) != removal:
            raise cannot("back up keys", f"{self._path(remote, name)} reads differently", "files")
        return removal

    def write(self, removal: Removal) -> None:
        raw = asdict(removal)
        for record in raw["records"]:
            record["content"] = base64.b64encode(record["content"]).decode()
        body, path = json.dumps(raw), self._path(removal.remote, removal.name)
        digest = hashlib.sha256(body.encode()).hexdigest()
        try:
            write_whole(path, f"{_FORMAT} {digest}\n{body}\n".encode())
        except OSError as error:
            raise cannot(f"write {path}", f"{error.strerror}", "files") from error

    def must_have_room(self, remote: str, records: Sequence[Record]) -> None:
        """EngineError where they cannot be backed up: asked before the session is taken down."""
        size = _ROOM + sum(_ROOM + 2 * len(record.content) for record in records)
        folder = self._path(remote, "").parent
        if shutil.disk_usage(folder).free < size:
            cause = f"{size // 1024} KiB are needed in {folder}; the session was not touched"
            raise cannot(f"back up the keys of {remote}", cause, "disk_full")

    def all(self, remote: str) -> list[Removal]:
        """Oldest first."""
        if not is_safe(remote) or not (self.root / remote).is_dir():
            return []
        paths = sorted((self.root / remote).glob("*.json"))
        return [removal for path in paths if (removal := _read(path)) is not None]

    def find(self, remote: str, name: object) -> Removal:
        """A removal that can be put back. What lies in the session's place after it was put back
        may be the live pairing, which nothing may move away for it again."""
        good = isinstance(name, str) and _NAME.fullmatch(name)
        removal = _read(self._path(remote, str(name))) if good else None
        if removal is None or removal.remote != remote:
            cause = "there is no such removal, or it is damaged"
            raise InvalidRequest(f"cannot put back {name!r:.40}: {cause}", field="name")
        if removal.state == "put_back":
            cause = "it was put back already, and nothing of the session was touched"
            raise cannot(f"put back {name}", cause, "put_back_already")
        return removal

    def sweep(self) -> int:
        """Delete what was removed long ago."""
        folders = list(self.root.iterdir()) if self.root.is_dir() else []
        removals = [removal for folder in folders for removal in self.all(folder.name)]
        old = [removal for removal in removals if time.time() - removal.wall > KEEP]
        for removal in old:
            self._path(removal.remote, removal.name).unlink(missing_ok=True)
        return len(old)

    def _path(self, remote: str, name: str) -> Path:
        if not is_safe(remote):
            what = f"keep keys of {remote!r:.60}"
            raise cannot(what, "its name cannot name a folder", "remote_name")
        try:
            (self.root / remote).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise cannot(f"create {self.root / remote}", f"{error.strerror}", "files") from error
        return self.root / remote / f"{name}.json"


def _read(path: Path) -> Removal | None:
    """None: it is not whole."""
    try:
        with open_plain(path) as file:
            head, _, body = file.read(LARGEST).rstrip(b"\n").partition(b"\n")
        if head.decode() != f"{_FORMAT} {hashlib.sha256(body).hexdigest()}":
            return None
        raw = json.loads(body)
        for record in raw["records"]:
            record["content"] = base64.b64decode(record["content"], validate=True)
        removal = Removal(**{**raw, "records": tuple(Record(**it) for it in raw["records"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return removal if removal.name == path.stem else None
