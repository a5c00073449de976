"""A change of a session's files: the blocks that are new since the change before, sealed so that it
opens as no other session's, epoch's or number's."""

import zlib
from collections.abc import Mapping
from pathlib import PurePosixPath

import msgspec

from agent.core.model import InstanceId, parse_instance_id
from agent.errors import InvalidRequest, VaultError
from agent.fleet.key import FleetKey

BLOCK = 64 << 10
LARGEST = 64 << 20
"""Bytes of all files of one session, and of one change that is opened."""
MOST_FILES, LONGEST_PATH = 20_000, 512
IDENTITY, MESSAGES, ROWS, MEDIA = "instance.json", "messages/messages.db", "outbox.json", "outbox/"
"""Paths of a copy, beside the session's files, which lie below `session/`."""


class File(msgspec.Struct, frozen=True, array_like=True):
    size: int
    blocks: dict[int, bytes]
    """By their number; those that are as before are left out."""


class Change(msgspec.Struct, frozen=True, array_like=True):
    files: dict[str, File] = {}
    gone: tuple[str, ...] = ()


class Sealed(msgspec.Struct, frozen=True, array_like=True):
    """As it travels and lies on the disk of another machine."""

    id: str
    epoch: int
    number: int
    """One more than that of the change before. A base begins a row at any number."""
    base: bool
    """All files, whatever was before."""
    row: str
    """Random for each row that an agent begins: a late change of an earlier one fits none."""
    content: bytes

    @property
    def context(self) -> bytes:
        return f"change {self.id} {self.epoch} {self.number} {self.base:d} {self.row}".encode()


def seal(key: FleetKey, head: Sealed, change: Change) -> Sealed:
    """`head`: without its content."""
    packed = zlib.compress(msgspec.msgpack.encode(change), 1)
    return msgspec.structs.replace(head, content=key.seal(head.context, packed))


def unseal(key: FleetKey, sealed: Sealed) -> tuple[InstanceId, Change]:
    """VaultError for all that this fleet did not seal as this."""
    try:
        id = parse_instance_id(sealed.id)
        packed = zlib.decompressobj()
        content = packed.decompress(key.open(sealed.context, sealed.content), 2 * LARGEST)
        if packed.unconsumed_tail:
            raise damaged("it is too large")
        return id, msgspec.msgpack.decode(content, type=Change)
    except (zlib.error, msgspec.MsgspecError, ValueError, InvalidRequest) as error:
        raise damaged(str(error)) from error


def apply(files: dict[str, bytearray], change: Change) -> None:
    """Bring the files of the change before to this one. VaultError, and they are of no use, where
    it does not fit them."""
    for path in change.gone:
        files.pop(path, None)
    for path, file in change.files.items():
        _check_path(path)
        content = files.setdefault(path, bytearray())
        del content[file.size :]
        for number, block in sorted(file.blocks.items()):
            at = number * BLOCK
            if not 0 <= at <= len(content) or at + len(block) > file.size:
                raise damaged(f"block {number} of {path!r:.80} does not fit")
            content[at : at + len(block)] = block
        if len(content) != file.size:
            raise damaged(f"{path!r:.80} is not whole")
    if len(files) > MOST_FILES or sum(map(len, files.values())) > LARGEST:
        raise damaged("it has too many files, or too large ones")


def whole(files: Mapping[str, bytes | bytearray]) -> Change:
    """All files, as a base has them."""
    found = dict[str, File]()
    for path, content in files.items():
        starts = enumerate(range(0, len(content), BLOCK))
        blocks = {number: bytes(content[at : at + BLOCK]) for number, at in starts}
        found[path] = File(len(content), blocks)
    return Change(found)


def damaged(cause: str) -> VaultError:
    return VaultError(f"cannot use the copy: {cause}", code="damaged")


def _check_path(path: str) -> None:
    parts = PurePosixPath(path).parts
    plain = "/".join(parts) == path and not path.startswith("/") and ".." not in parts
    if not plain or not 0 < len(path) <= LONGEST_PATH or "\0" in path:
        raise damaged(f"{path!r:.80} is no path below a session")
