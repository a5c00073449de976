"""A change of a session's files: the blocks that are new since the change before, sealed so that it
opens as no other session's, epoch's or number's.

The fleet's key is 32 random bytes in a file that every machine of the fleet has, mode 0600. The
store never gets it.
"""

import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path

import msgspec

from agent.core.model import InstanceId, parse_instance_id
from agent.errors import ConfigError, InvalidRequest, VaultError
from agent.files import open_plain

BLOCK = 64 << 10
LARGEST = 64 << 20
"""Bytes of all files of one session, and of one change that is opened."""
MOST_FILES, LONGEST_PATH = 20_000, 512
_KEY, _NONCE = 32, 24
_MAGIC = b"WA-COPY-3\n"


@dataclass(frozen=True, slots=True)
class FleetKey:
    _secret: bytes = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> "FleetKey":
        if find_spec("nacl") is None:
            raise _unusable(path, "PyNaCl is missing: pip install 'wa-agent[fleet]'")
        try:
            with open_plain(path) as file:
                status, secret = os.fstat(file.fileno()), file.read(_KEY + 1)
        except OSError as error:
            raise _unusable(path, error.strerror or str(error)) from error
        if status.st_mode & 0o077:
            raise _unusable(path, "others may read it; chmod 600")
        if len(secret) != _KEY:
            raise _unusable(path, f"it does not hold {_KEY} bytes")
        return cls(secret)

    @property
    def mark(self) -> str:
        """A mark that only the same key has; it betrays none of the 32 random bytes."""
        return blake2b(_MAGIC, key=self._secret, digest_size=8).hexdigest()

    def seal(self, context: bytes, data: bytes) -> bytes:
        """Seal `data`: only `open` with the same key and the same context gives it back."""
        from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as encrypt

        nonce = os.urandom(_NONCE)
        return _MAGIC + nonce + encrypt(data, _MAGIC + context, nonce, self._secret)

    def open(self, context: bytes, sealed: bytes) -> bytes:
        """Return the data; VaultError if it was not sealed with this key in this context."""
        from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as decrypt
        from nacl.exceptions import CryptoError

        head, rest = sealed[: len(_MAGIC) + _NONCE], sealed[len(_MAGIC) + _NONCE :]
        try:
            return decrypt(rest, head[:-_NONCE] + context, head[-_NONCE:], self._secret)
        except (CryptoError, ValueError, TypeError) as error:
            words = "it was changed, or is of another fleet, session, epoch or number"
            raise VaultError(f"cannot open the copy: {words}", code="damaged") from error


def _unusable(path: Path, cause: str) -> ConfigError:
    return ConfigError(f"cannot use the fleet's key {path}: {cause}", code="fleet_key")


class File(msgspec.Struct, frozen=True, array_like=True):
    size: int
    blocks: dict[int, bytes]
    """Number → block; blocks that are as before are left out."""


class Change(msgspec.Struct, frozen=True, array_like=True):
    files: dict[str, File] = {}
    gone: tuple[str, ...] = ()


class Sealed(msgspec.Struct, frozen=True, array_like=True):
    """A sealed change, as it travels and lies on the disk of another machine."""

    id: str
    epoch: int
    number: int
    """One more than that of the change before. A base begins a row at any number."""
    base: bool
    """True if the change has all files, whatever was before."""
    row: str
    """Random for each row that an agent begins: a late change of an earlier one fits none."""
    content: bytes

    @property
    def context(self) -> bytes:
        return f"change {self.id} {self.epoch} {self.number} {self.base:d} {self.row}".encode()


def seal(key: FleetKey, head: Sealed, change: Change) -> Sealed:
    """Return the sealed change. `head`: its fields, without content."""
    packed = zlib.compress(msgspec.msgpack.encode(change), 1)
    return msgspec.structs.replace(head, content=key.seal(head.context, packed))


def unseal(key: FleetKey, sealed: Sealed) -> tuple[InstanceId, Change]:
    """Return session and change; VaultError if this fleet did not seal them as this."""
    try:
        id, packed = parse_instance_id(sealed.id), zlib.decompressobj()
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
        plain = {"", ".", ".."}.isdisjoint(path.split("/")) and "\0" not in path
        if not plain or len(path) > LONGEST_PATH:
            raise damaged(f"{path!r:.80} is no path below a session")
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
    """Return a change with all files, as a base has them."""
    every = files.items()
    return Change({path: File(len(it), dict(enumerate(blocks_of(it)))) for path, it in every})


def blocks_of(content: bytes | bytearray) -> list[bytes]:
    return [bytes(content[at : at + BLOCK]) for at in range(0, len(content), BLOCK)]


def damaged(cause: str) -> VaultError:
    return VaultError(f"cannot use the copy: {cause}", code="damaged")
