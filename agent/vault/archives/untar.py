"""Reads a gzipped tar from anywhere: streamed, bounded in every direction, plain files only.

The tarfile of Python 3.11.2 has no filter for members, and reads extended heads of any size into
memory; so heads are read here, and unneeded ones are refused.
"""

import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from agent.errors import InvalidRequest, TooLarge

BLOCK = 512
_PIECE = 1 << 16
LONGEST_EXTENDED_HEAD = 1 << 16
"""Bytes; the agent's archives have one for a long or foreign path."""
_AFTER_END = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of an archive."""

    packed: int = 1 << 30
    unpacked: int = 4 << 30
    files: int = 50_000


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    size: int
    pieces: Iterator[bytes]
    """To be read before the next member."""


def refuse(cause: str) -> InvalidRequest:
    return InvalidRequest(f"cannot use the archive: {cause}", field="archive", code="bad_archive")


def read_members(source: IO[bytes], limits: Limits) -> Iterator[Member]:
    """Each plain file in the archive's order; InvalidRequest or TooLarge for anything else."""
    stream = _Inflated(source, limits)
    count = 0
    extended: dict[str, str] = {}
    while (head := stream.read_block()) is not None:
        member = _read_head(head)
        if member.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            extended = _read_extended(stream, member.size)
            continue
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise refuse(f"{member.name!r:.80} is no plain file (type {member.type!r})")
        count += 1
        if count > limits.files:
            raise TooLarge(
                f"cannot use the archive: it has more than {limits.files} files",
                field="archive",
                code="too_many_files",
            )
        size = _size_of(member, extended)
        content = _Content(stream, size)
        yield Member(extended.get("path", member.name), size, content.pieces())
        content.skip()
        extended = {}
    stream.finish()


def _read_head(head: bytes) -> "tarfile.TarInfo":
    try:
        return tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        raise refuse(f"it is no tar, or a damaged one ({error})") from None


def _size_of(member: "tarfile.TarInfo", extended: dict[str, str]) -> int:
    if "size" not in extended:
        size = member.size
    elif extended["size"].isascii() and extended["size"].isdigit():
        size = int(extended["size"][:20])
    else:
        raise refuse("an extended head has a size that is no number")
    if size < 0:
        raise refuse(f"{member.name!r:.80} has a negative size")
    return size


def _read_extended(stream: "_Inflated", size: int) -> dict[str, str]:
    if not 0 < size <= LONGEST_EXTENDED_HEAD:
        raise refuse(f"an extended head of {size} bytes")
    raw = b"".join(_Content(stream, size).pieces())
    records: dict[str, str] = {}
    while raw:
        length, space, _ = raw.partition(b" ")
        if not space or not length.isdigit() or len(length) > 6:
            raise refuse("an extended head that cannot be read")
        record, raw = raw[len(length) + 1 : int(length)], raw[int(length) :]
        key, equals, value = record.partition(b"=")
        if not equals or not record.endswith(b"\n") or len(key) > 64:
            raise refuse("an extended head that cannot be read")
        name = key.decode("ascii", "replace")
        if name.startswith("GNU.sparse"):
            raise refuse("a sparse file")
        records[name] = value[:-1].decode("utf-8", "surrogateescape")
    return records


@dataclass(slots=True)
class _Content:
    """One member's bytes, with the filling up to the next block."""

    stream: "_Inflated"
    size: int
    done: int = 0

    def pieces(self) -> Iterator[bytes]:
        while self.done < self.size:
            piece = self.stream.read_exactly(min(_PIECE, self.size - self.done))
            self.done += len(piece)
            yield piece
        self._fill()

    def skip(self) -> None:
        for _ in self.pieces():
            pass

    def _fill(self) -> None:
        if self.size >= 0:
            filling = -self.size % BLOCK
            self.size = self.done = -1
            if filling:
                self.stream.read_exactly(filling)


class _Inflated:
    """The unpacked stream: one piece of it in memory at a time, bounded in sum."""

    def __init__(self, source: IO[bytes], limits: Limits) -> None:
        self._read: Callable[[int], bytes] = source.read
        self._limits = limits
        self._inflate = zlib.decompressobj(wbits=31)
        self._waiting = b""
        self._ready = bytearray()
        self._packed = 0
        self._unpacked = 0

    def read_block(self) -> bytes | None:
        """The next head; None at the two empty blocks that end a tar."""
        block = self.read_exactly(BLOCK)
        if block.strip(b"\0"):
            return block
        if self.read_exactly(BLOCK).strip(b"\0"):
            raise refuse("it has a single empty block")
        return None

    def read_exactly(self, count: int) -> bytes:
        while len(self._ready) < count:
            if not self._more():
                raise refuse("it ends too early")
        taken = bytes(self._ready[:count])
        del self._ready[:count]
        return taken

    def finish(self) -> None:
        """To the end of the gzip, where its checksum is; only filling may follow."""
        filling = len(self._ready)
        while True:
            if self._ready.strip(b"\0") or filling > _AFTER_END:
                raise refuse("data follows its end")
            self._ready.clear()
            if not self._more():
                break
            filling += len(self._ready)
        if self._inflate.unused_data or self._waiting or self._read(1):
            raise refuse("data follows its end")

    def _more(self) -> bool:
        """Unpack one more piece; False at the proper end."""
        while not self._inflate.eof:
            raw = self._inflate.unconsumed_tail or self._waiting
            self._waiting = b""
            if not raw:
                raw = self._fetch()
            try:
                piece = self._inflate.decompress(raw, _PIECE)
            except zlib.error as error:
                raise refuse(f"it is no gzip, or a damaged one ({error})") from None
            if piece:
                self._note(len(piece))
                self._ready += piece
                return True
        return False

    def _fetch(self) -> bytes:
        raw = self._read(_PIECE)
        if not raw:
            raise refuse("it ends too early")
        self._packed += len(raw)
        if self._packed > self._limits.packed:
            raise TooLarge(
                f"cannot use the archive: it has more than {self._limits.packed} bytes",
                field="archive",
            )
        return raw

    def _note(self, count: int) -> None:
        self._unpacked += count
        # Heads and filling are counted generously: a block or three for each file.
        allowed = self._limits.unpacked + 4 * BLOCK * self._limits.files
        if self._unpacked > allowed:
            raise TooLarge(
                f"cannot use the archive: unpacked it has more than {self._limits.unpacked} bytes",
                field="archive",
                code="unpacks_too_large",
            )
