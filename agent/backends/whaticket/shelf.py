"""Removed keys: a file for each removal, kept for seven days; and the keys in an auth folder of
Baileys, a file for each. No link is followed. Blocking work runs in threads.

A removal's file has the records themselves, so it is whole before the first record goes: a removal
that was killed at any step can be put back.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agent.backends.whaticket.contract import cannot, is_safe
from agent.engines.tasks import in_thread
from agent.errors import EngineError, InvalidRequest
from agent.files import open_plain, replacement, write_whole

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


LARGEST_KEY = 16 << 20
SUFFIX = ".json"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class FolderKeys:
    """`template`: /path/{id}. Names are the files' names."""

    template: str
    redis = False

    def path(self, id: str) -> Path:
        if not is_safe(id):
            what = f"find the keys of {id!r:.60}"
            raise cannot(what, "its name cannot name a folder", "remote_name")
        return Path(self.template.rstrip("/").replace("{id}", id))

    async def names(self, id: str) -> list[str]:
        return await in_thread(self._names, id)

    def _names(self, id: str) -> list[str]:
        if not os.path.lexists(self.path(id)):
            return []
        with _opened(self.path(id)) as fd, os.scandir(fd) as entries:
            # A link counts: it must be refused, not passed over.
            return sorted(it.name for it in entries if not it.is_dir(follow_symlinks=False))

    async def values(self, id: str, names: Sequence[str]) -> dict[str, bytes]:
        """What the files hold; those that are gone or unreadable are left out."""
        values: dict[str, bytes] = {}
        for name in names:
            with suppress(EngineError):
                values |= {it.name: it.content for it in await self.read(id, [name])}
        return values

    async def read(self, id: str, names: Sequence[str]) -> list[Record]:
        """Those that are there. EngineError: one is a link, a pipe, a giant, or unreadable."""
        return await in_thread(self._records, id, names)

    def _records(self, id: str, names: Sequence[str]) -> list[Record]:
        records = []
        with _opened(self.path(id)) as fd:
            for name in names:
                with suppress(FileNotFoundError):
                    records.append(_read_key(self.path(id), fd, name))
        return records

    async def remove(self, id: str, records: Sequence[Record]) -> None:
        """EngineError, before it goes, for one that is not as it was backed up."""
        await in_thread(self._remove, id, records)

    def _remove(self, id: str, records: Sequence[Record]) -> None:
        path = self.path(id)
        with _opened(path) as fd:
            for record in records:
                try:
                    if _read_key(path, fd, record.name).content != record.content:
                        cause = "it changed meanwhile, so the server still writes it"
                        raise cannot(f"remove a key of {path}", cause, "files")
                    os.unlink(record.name, dir_fd=fd)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise _failed("remove a key of", path, error) from error
            os.fsync(fd)

    async def restore(self, id: str, records: Sequence[Record]) -> None:
        """With owner and mode of before. The caller moved away what was in their place."""
        await in_thread(self._restore, id, records)

    def _restore(self, id: str, records: Sequence[Record]) -> None:
        path = self.path(id)
        try:
            if not path.exists():
                path.mkdir(mode=0o700)
                os.chown(path, records[0].uid, records[0].gid)
            with _opened(path) as fd:
                for record in records:
                    with replacement(fd, record.name, mode=record.mode) as file:
                        file.write(record.content)
                        os.fchown(file.fileno(), record.uid, record.gid)
        except OSError as error:
            raise _failed("put keys back into", path, error) from error


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A link in its place is refused."""
    try:
        fd = os.open(path, _DIRECTORY)
    except OSError as error:
        raise _failed("open", path, error) from error
    try:
        yield fd
    finally:
        os.close(fd)


def _read_key(folder: Path, fd: int, name: str) -> Record:
    """FileNotFoundError if it is gone."""
    try:
        with os.fdopen(os.open(name, _READ, dir_fd=fd), "rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(LARGEST_KEY + 1) if stat.S_ISREG(status.st_mode) else None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _failed("read a key of", folder, error) from error
    if content is None or len(content) > LARGEST_KEY:
        raise cannot(f"read a key of {folder}", "it is no file of keys", "files")
    mode = stat.S_IMODE(status.st_mode)
    return Record(name, content, mode=mode, uid=status.st_uid, gid=status.st_gid)


def _failed(verb: str, path: Path, error: OSError) -> EngineError:
    return cannot(f"{verb} {path}", (error.strerror or type(error).__name__).lower(), "files")
