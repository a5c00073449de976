"""Standby: the newest files of sessions that other machines run, sealed, on this machine's disk.

Each session has a folder with one file, `log`: a base and the changes after it. What was taken is
on the disk, and survives a kill at any point; the torn end of a cut write goes.
"""

import os
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import msgspec

from agent.core.model import InstanceId
from agent.errors import Refused, VaultError
from agent.files import make_folder, open_plain, write_whole
from agent.fleet.copies.change import LARGEST, FleetKey, Sealed, apply, damaged, seal, unseal, whole
from agent.vault.folder import explain

LOG = "log"
FOLD_AT = 200
"""Changes after a base from which a new base is made."""
_HEAD = struct.Struct(">II")
"""Length of an entry, and its checksum: a length that was changed is no torn end."""


class Standby:
    """Copies of other machines' sessions. Calls use the disk: each in a thread, one at a time for
    each session."""

    def __init__(self, root: Path, key: FleetKey) -> None:
        self._root, self._key = root, key
        self.rows = dict[str, tuple[Sealed, Sealed]]()
        """The base of each session and its newest change, or the base again, without their content.
        One that this key does not open, as it was replaced, is none."""
        self.asked = dict[str, float]()
        """Unix time of the last change or question of each session's owner."""
        make_folder(root)
        for id in (it.name for it in root.iterdir()):
            with suppress(VaultError, FileNotFoundError):
                heads = [_head(it) for it in self.read(id) if key.open(it.context, it.content)]
                self.rows[id] = heads[0], heads[-1]
                self.asked[id] = (root / id / LOG).stat().st_mtime

    def newest(self, id: str) -> tuple[int, int] | None:
        """Return epoch and number of the copy that can be built; None: there is none."""
        rows = self.rows.get(id)
        return (rows[-1].epoch, rows[-1].number) if rows else None

    def take(self, sealed: Sealed) -> None:
        """When this returns it is on the disk. Refused: `needs_base`, or `older` than `newest`;
        VaultError where it cannot be used, or there is no room."""
        self.asked[sealed.id] = time.time()
        if not sealed.content:  # the question if this change is the newest here
            rows = self.rows.get(sealed.id)
            if rows and msgspec.structs.replace(rows[-1], base=False) == sealed:
                return
            raise Refused(f"cannot confirm {sealed.id!r:.80}: it is not here", code="needs_base")
        id, change = unseal(self._key, sealed)
        if (known := self.newest(id)) is not None and (sealed.epoch, sealed.number) <= known:
            raise Refused(f"cannot take a copy of {id}: {known} is here already", code="older")
        if sealed.base:
            apply({}, change)
            self._write(id, sealed)
            return
        if known is None or not _follows(self.rows[id][-1], sealed):
            raise Refused(f"cannot take a change of {id}: it follows another", code="needs_base")
        self._append(id, sealed)
        self.rows[id] = first, last = self.rows[id][0], _head(sealed)
        if last.number - first.number >= FOLD_AT:
            with suppress(VaultError):  # where there is no room for a base the row goes on
                base = msgspec.structs.replace(last, base=True)
                self._write(id, seal(self._key, base, whole(self.build(id))))

    def build(self, id: InstanceId) -> dict[str, bytearray]:
        """Build the session's files as of `newest`. VaultError if one is missing or wrong."""
        files = dict[str, bytearray]()
        if not (rows := self.rows.get(id)):
            raise damaged(f"there is none of {id}")
        read = list(self.read(id)) if (self._root / id / LOG).exists() else []
        if not read or (_head(read[0]), _head(read[-1])) != rows:
            raise damaged("it is not what was taken")
        for sealed in read:
            apply(files, unseal(self._key, sealed)[1])
        return files

    def replace(self, id: InstanceId, changes: Sequence[Sealed]) -> None:
        """Replace the copy by another machine's, if that is newer. This one stays until then."""
        files, last = dict[str, bytearray](), changes[0] if changes else None
        for sealed in changes:
            named, change = unseal(self._key, sealed)
            if named != id or last is None or not (sealed.base or _follows(last, sealed)):
                raise damaged("its parts do not follow each other")
            apply(files, change)
            last = sealed
        if last is not None and (last.epoch, last.number) > (self.newest(id) or (0, 0)):
            self._write(id, seal(self._key, msgspec.structs.replace(last, base=True), whole(files)))

    def forget(self, id: str) -> None:
        """Delete a copy that is of no use any more."""
        self.rows.pop(id, None)
        with suppress(FileNotFoundError):
            (self._root / id / LOG).unlink()
            (self._root / id).rmdir()

    def set_aside(self, id: str = "") -> None:
        """Put all copies, or a damaged one, aside: they are kept and used no more."""
        why = f"damaged-{id}" if id else "older"
        aside = self._root.with_name(f"{self._root.name}-{why}-{time.time():.0f}")
        with suppress(FileNotFoundError):
            (self._root / id).rename(aside)
        make_folder(self._root)
        for it in [id] if id else [*self.rows]:
            self.rows.pop(it, None)

    def _write(self, id: InstanceId, base: Sealed) -> None:
        path = self._root / id / LOG
        try:
            make_folder(path.parent)
            write_whole(path, _framed(base))
        except OSError as error:
            raise explain("write", path, error) from error
        self.rows[id] = _head(base), _head(base)

    def _append(self, id: InstanceId, sealed: Sealed) -> None:
        path = self._root / id / LOG
        size = path.stat().st_size if path.exists() else 0
        try:
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(fd, "ab") as file:
                file.write(_framed(sealed))
                file.flush()
                os.fdatasync(fd)
        except OSError as error:
            with suppress(OSError):
                os.truncate(path, size)
            del self.rows[id]  # what the disk has is not known: a base comes next
            raise explain("write", path, error) from error

    def read(self, id: str) -> Iterator[Sealed]:
        """Yield a base and the changes after it; a torn end is cut off."""
        path, at, last = self._root / id / LOG, 0, None
        with open_plain(path) as file:
            while len(head := file.read(_HEAD.size)) == _HEAD.size and any(head):
                length, check = _HEAD.unpack(head)
                if crc32(head[:4]) != check:
                    raise damaged("a length in it was changed")
                if len(content := file.read(min(length, LARGEST))) < length:
                    break
                try:
                    sealed = msgspec.msgpack.decode(content, type=Sealed)
                except (msgspec.MsgspecError, ValueError) as error:
                    raise damaged(str(error)) from error
                if sealed.id != id or not (sealed.base if last is None else _follows(last, sealed)):
                    raise damaged("its parts do not follow each other")
                at, last = file.tell(), sealed
                yield sealed
        if last is None:
            raise damaged("it has no base")
        if path.stat().st_size > at:
            os.truncate(path, at)


def _follows(before: Sealed, sealed: Sealed) -> bool:
    same = (sealed.epoch, sealed.row) == (before.epoch, before.row) and not sealed.base
    return same and sealed.number == before.number + 1


def _head(sealed: Sealed) -> Sealed:
    return msgspec.structs.replace(sealed, content=b"")


def _framed(sealed: Sealed) -> bytes:
    content = msgspec.msgpack.encode(sealed)
    return _HEAD.pack(len(content), crc32(len(content).to_bytes(4, "big"))) + content
