"""Removed keys: a file for each removal, kept for seven days. Blocking; runs in a thread.

The file has the records themselves, so it is whole before the first record goes: a removal that
was killed at any step can be put back.
"""

import base64
import binascii
import errno
import hashlib
import json
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.backends.whaticket.contract import is_safe
from agent.errors import EngineError, InvalidRequest
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
        return {
            "name": self.name,
            "at": self.wall,
            "why": self.why,
            "state": self.state,
            "files": len(self.records) - keys,
            "keys": keys,
            "whole": self.whole,
        }


@dataclass(frozen=True, slots=True)
class Shelf:
    """All removals of one backend."""

    root: Path

    def keep(self, remote: str, why: str, records: Sequence[Record], *, whole: bool) -> Removal:
        """Write them down and read them back."""
        wall, folder = time.time(), self._folder(remote)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall))
        taken = {removal.stem for removal in folder.iterdir()}
        names = (stamp, *(f"{stamp}.{number}" for number in range(2, 10_000)))
        name = next(name for name in names if name not in taken)
        removal = Removal(name, remote, why[:200], wall, "begun", whole, tuple(records))
        self.write(removal)
        if self._read(self._path(remote, name)) != removal:
            cause = f"{self._path(remote, name)} reads differently"
            raise EngineError(f"cannot back up keys: {cause}", code="files")
        return removal

    def write(self, removal: Removal) -> None:
        records = [asdict(record) | {"content": ""} for record in removal.records]
        for raw, record in zip(records, removal.records, strict=True):
            raw["content"] = base64.b64encode(record.content).decode()
        body = json.dumps({**asdict(replace(removal, records=())), "records": records})
        digest = hashlib.sha256(body.encode()).hexdigest()
        path = self._path(removal.remote, removal.name)
        try:
            write_whole(path, f"{_FORMAT} {digest}\n{body}\n".encode())
        except OSError as error:
            raise _failed(f"write {path}", error) from error

    def must_have_room(self, remote: str, records: Sequence[Record]) -> None:
        """EngineError where they cannot be backed up: asked before the session is taken down."""
        size = _ROOM + sum(_ROOM + 2 * len(record.content) for record in records)
        folder = self._folder(remote)
        if shutil.disk_usage(folder).free < size:
            cause = f"{size // 1024} KiB are needed; the session was not touched; free space on the"
            words = f"cannot back up the keys of {remote} in {folder}: {cause} agent's disk"
            raise EngineError(words, code="disk_full")

    def all(self, remote: str) -> list[Removal]:
        """Oldest first."""
        if not is_safe(remote) or not (self.root / remote).is_dir():
            return []
        paths = sorted(p for p in self._folder(remote).iterdir() if _NAME.fullmatch(p.stem))
        return [removal for path in paths if (removal := self._read(path)) is not None]

    def find(self, remote: str, name: object) -> Removal:
        """A removal that can be put back. What lies in the session's place after it was put back
        may be the live pairing, which nothing may move away for it again."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidRequest("cannot put back: `name` is no removal's name", field="name")
        removal = self._read(self._path(remote, name))
        if removal is None or removal.remote != remote:
            cause = "there is no such removal, or it is damaged"
            raise InvalidRequest(f"cannot put back {name}: {cause}", field="name")
        if removal.state == "put_back":
            cause = "it was put back already, and nothing of the session was touched"
            raise EngineError(f"cannot put back {name}: {cause}", code="put_back_already")
        return removal

    def sweep(self) -> int:
        """Delete what was removed long ago."""
        folders = list(self.root.iterdir()) if self.root.is_dir() else []
        old = [
            self._path(folder.name, removal.name)
            for folder in folders
            for removal in self.all(folder.name)
            if time.time() - removal.wall > KEEP
        ]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)

    def _path(self, remote: str, name: str) -> Path:
        return self._folder(remote) / f"{name}.json"

    def _folder(self, remote: str) -> Path:
        if not is_safe(remote):
            cause = "its name cannot name a folder"
            raise EngineError(f"cannot keep keys of {remote!r:.60}: {cause}", code="remote_name")
        folder = self.root / remote
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _failed(f"create {folder}", error) from error
        return folder

    def _read(self, path: Path) -> Removal | None:
        """None: it is not whole."""
        try:
            with open_plain(path) as file:
                head, _, body = file.read(LARGEST).rstrip(b"\n").partition(b"\n")
            if head.decode() != f"{_FORMAT} {hashlib.sha256(body).hexdigest()}":
                return None
            raw = json.loads(body)
            records = tuple(_record(each) for each in raw.pop("records"))
            removal = Removal(**{**raw, "records": records})
        except (OSError, ValueError, TypeError, KeyError, binascii.Error):
            return None
        return removal if removal.name == path.stem else None


def _record(raw: dict[str, Any]) -> Record:
    return Record(content=base64.b64decode(raw.pop("content"), validate=True), **raw)


def _failed(what: str, error: OSError) -> EngineError:
    code = "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "files"
    return EngineError(f"cannot {what}: {error.strerror}", code=code)
