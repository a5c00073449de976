"""Finds the changes of a session's folder since the last look. Every store renames into its folder,
so one `stat` of each folder shows that nothing changed."""

import os
import time
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import blake2b
from pathlib import Path

import msgspec

from agent.clock import boot_now
from agent.core.model import InstanceId
from agent.errors import VaultError
from agent.fleet.copies.beside import Beside, Stamp
from agent.fleet.copies.change import BLOCK, LARGEST, LONGEST_PATH, MOST_FILES, Change, File
from agent.vault.folder import SESSION, Folder, open_instance, unless_absent
from agent.vault.tree import read_file, walk

FULL = 30
"""Looks after which files are looked at though no folder says that they changed."""
TICK = 50_000_000
Folders = tuple[int, ...]
"""Stamp of a folder; () = it is gone."""


class Seen(msgspec.Struct, frozen=True, array_like=True):
    stamp: Stamp
    size: int
    hashes: tuple[bytes, ...] = ()
    """Hash of each block, where it has several."""


_SEEN, _NONE = msgspec.msgpack.Decoder(dict[str, Seen]), Seen((None,), -1)


class Changed(msgspec.Struct, eq=False):
    """Finds changes of one session. The first change of a new one has all files."""

    root: Path
    id: InstanceId
    engine: str
    beside: Beside
    as_of: float = 0.0
    """Begin of the last look that saw all, by the boot clock."""
    _seen: bytes = zlib.compress(msgspec.msgpack.encode({}))
    """By path, packed: a Baileys session has 800 files, and a machine 200 sessions."""
    _folders: dict[str, Folders] = {}
    _others: Mapping[str, Stamp] = {}
    _skipped: int = FULL

    def look(self) -> Change | None:
        """None: nothing changed, or the files change while they are read: the next look has them.
        VaultError where they cannot be read."""
        begun, others = boot_now(), self.beside.stamps(self.id)
        with open_instance(self.root, self.id) as top:
            same = others == self._others and _stamps(top, self._folders) == self._folders
            if self._skipped < FULL and same:
                self._skipped, self.as_of = self._skipped + 1, begun
                return None
            seen = _SEEN.decode(zlib.decompress(self._seen))
            folders, files, found = self._read(top, others, seen)
            if _stamps(top, folders) != folders:
                return None
        gone = tuple(sorted(seen.keys() - files.keys()))
        # What is renamed into it within the same tick of the kernel's clock leaves no other stamp.
        newest = max(stamp[-1] for stamp in folders.values() if stamp)
        self._folders, self._skipped = folders, 0 if newest < time.time_ns() - TICK else FULL
        self._seen = zlib.compress(msgspec.msgpack.encode(files), 1)
        self._others, self.as_of = others, begun
        return Change(found, gone) if found or gone else None

    def _read(
        self, top: Folder, others: Mapping[str, Stamp], seen: Mapping[str, Seen]
    ) -> tuple[dict[str, Folders], dict[str, Seen], dict[str, File]]:
        """Stamps of the folders, and the files; of those that may differ the blocks that do."""
        folders, files, found = dict[str, Folders](), dict[str, Seen](), dict[str, File]()
        left = LARGEST

        def take(path: str, stamp: Stamp, read: Callable[[], bytes]) -> None:
            nonlocal left
            had = seen.get(path, _NONE)
            if had.stamp == stamp:
                files[path] = had
                left -= had.size
                return
            content = read()
            left -= len(content)
            if left < 0 or len(files) >= MOST_FILES or len(path) > LONGEST_PATH:
                most = f"{MOST_FILES} files or {LARGEST >> 20} MiB, or a long path"
                raise VaultError(f"cannot copy {self.id}: more than {most}", code="too_large")
            blocks = [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]
            now = tuple(blake2b(it, digest_size=16).digest() for it in blocks)
            new = {n: it for n, it in enumerate(blocks) if had.hashes[n : n + 1] != now[n : n + 1]}
            files[path] = Seen(stamp, len(content), now * (len(blocks) > 1))
            if new or len(content) != had.size:
                found[path] = File(len(content), new)

        for path, stamp in others.items():
            with unless_absent():  # it was sent meanwhile, say
                take(path, stamp, partial(self.beside.read, self.id, path))
        with top.inner(SESSION) as session:
            folders[SESSION] = _stamp(os.fstat(session.fd))
            for entry in walk(session, self.engine):
                path, stamp = f"{SESSION}/{entry.path}", _stamp(entry.status)
                if entry.is_folder:
                    folders[path] = stamp
                else:
                    take(path, stamp, partial(b"".join, read_file(session, entry.path)))
        return folders, files, found


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _stamps(top: Folder, folders: Mapping[str, Folders]) -> dict[str, Folders]:
    found = dict[str, Folders]()
    for path in folders:
        try:
            found[path] = _stamp(os.stat(path or ".", dir_fd=top.fd, follow_symlinks=False))
        except FileNotFoundError:
            found[path] = ()
    return found
