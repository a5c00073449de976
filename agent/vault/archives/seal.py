"""An archive sealed for one agent, whose key file opens it, piece by piece.

The file: MAGIC, the recipient's fingerprint, the length of a libsodium sealed box and the box (the
stream's key, its instance and invitation), then frames of a length and a piece of a libsodium
secretstream. Its last frame has the final tag.
"""

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from agent.core.invitation_line import fingerprint
from agent.core.model import InstanceId, parse_instance_id
from agent.errors import InvalidRequest, Refused, VaultError
from agent.files import write_whole

MAGIC = b"WA-SEALED-1\n"
_PIECE = 1 << 16
_LARGEST_BOX = 4096
_FINGERPRINT = 16
_KEY = 32


@dataclass(frozen=True, slots=True)
class Sealed:
    """The instance and the invitation that the box names."""

    id: InstanceId
    token: str
    """Of the invitation it answers; "" = of none."""


def make_key(path: Path) -> bytes:
    """The public key of the key file, which is made where there is none."""
    private = _read_key(path)
    if private is None:
        private = os.urandom(_KEY)
        try:
            write_whole(path, private)
        except OSError as error:
            raise VaultError(f"cannot write {path}: {error.strerror}") from error
    from nacl.public import PrivateKey

    return bytes(PrivateKey(private).public_key)


def _read_key(path: Path) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise VaultError(f"cannot read {path}: {error.strerror}") from error
    with os.fdopen(fd, "rb") as file:
        private = file.read(_KEY + 1)
        if len(private) != _KEY or os.fstat(fd).st_mode & 0o077:
            raise VaultError(f"cannot use {path}: it is no key file of mode 0600", code="bad_key")
    return private


class Sealing:
    """A file to write an archive into; `finish` ends it."""

    def __init__(self, out: IO[bytes], public: bytes, sealed: Sealed) -> None:
        from nacl import bindings
        from nacl.public import PublicKey, SealedBox

        self._out = out
        self._push = bindings.crypto_secretstream_xchacha20poly1305_push
        self._state = bindings.crypto_secretstream_xchacha20poly1305_state()
        self._final = bindings.crypto_secretstream_xchacha20poly1305_TAG_FINAL
        self._waiting = bytearray()
        key = bindings.crypto_secretstream_xchacha20poly1305_keygen()
        head = bindings.crypto_secretstream_xchacha20poly1305_init_push(self._state, key)
        box = SealedBox(PublicKey(public)).encrypt(
            json.dumps(
                {"key": _text(key), "head": _text(head), "id": sealed.id, "token": sealed.token}
            ).encode()
        )
        out.write(MAGIC + bytes.fromhex(fingerprint(public)) + len(box).to_bytes(4, "big") + box)

    def write(self, piece: bytes) -> int:
        self._waiting += piece
        while len(self._waiting) > _PIECE:
            self._frame(bytes(self._waiting[:_PIECE]), 0)
            del self._waiting[:_PIECE]
        return len(piece)

    def finish(self) -> None:
        self._frame(bytes(self._waiting), self._final)

    def _frame(self, piece: bytes, tag: int) -> None:
        frame = self._push(self._state, piece, None, tag)
        self._out.write(len(frame).to_bytes(4, "big") + frame)


def is_sealed(source: IO[bytes]) -> bool:
    """Whether a sealed archive begins here; the source's position stays."""
    head = source.read(len(MAGIC))
    source.seek(-len(head), os.SEEK_CUR)
    return head == MAGIC


def lacks_of_head(head: bytes) -> int:
    """How many bytes must follow these until the box can be opened."""
    fixed = len(MAGIC) + _FINGERPRINT + 4
    if not head.startswith(MAGIC[: len(head)]):
        return 0  # no sealed archive, whatever follows
    if len(head) < fixed:
        return fixed - len(head)
    size = int.from_bytes(head[fixed - 4 : fixed], "big")
    return max(fixed + min(size, _LARGEST_BOX) - len(head), 0)


class Unsealed:
    """Reads the archive inside a sealed one. Errors name the fault."""

    def __init__(self, source: IO[bytes], key_file: Path) -> None:
        from nacl import bindings
        from nacl.exceptions import CryptoError
        from nacl.public import PrivateKey, SealedBox

        private = _read_key(key_file)
        if source.read(len(MAGIC)) != MAGIC:
            raise _bad("damaged", "it does not begin as one")
        recipient = source.read(_FINGERPRINT).hex()
        if private is None or recipient != fingerprint(bytes(PrivateKey(private).public_key)):
            raise Refused(
                f"cannot open the sealed session: it is sealed for the key {recipient}, which is"
                " not this agent's",
                field="archive",
                code="other_server",
            )
        size = int.from_bytes(_exactly(source, 4), "big")
        if size > _LARGEST_BOX:
            raise _bad("damaged", "its box is too large")
        try:
            raw = json.loads(SealedBox(PrivateKey(private)).decrypt(_exactly(source, size)))
            self.sealed = Sealed(parse_instance_id(raw["id"]), str(raw["token"]))
            key, head = base64.b64decode(raw["key"]), base64.b64decode(raw["head"])
            self._state = bindings.crypto_secretstream_xchacha20poly1305_state()
            bindings.crypto_secretstream_xchacha20poly1305_init_pull(self._state, head, key)
        except (CryptoError, ValueError, TypeError, KeyError) as error:
            raise _bad("damaged", "its box cannot be opened") from error
        self._pieces = _read_pieces(source, self._state)
        self._ready = b""

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the proper end only."""
        if not self._ready:
            self._ready = next(self._pieces, b"")
        taken, self._ready = self._ready[:size], self._ready[size:]
        return taken


def _read_pieces(source: IO[bytes], state: object) -> Iterator[bytes]:
    from nacl import bindings
    from nacl.exceptions import CryptoError

    pull = bindings.crypto_secretstream_xchacha20poly1305_pull
    tag = 0
    while tag != bindings.crypto_secretstream_xchacha20poly1305_TAG_FINAL:
        size = int.from_bytes(_exactly(source, 4), "big")
        if size > _PIECE + bindings.crypto_secretstream_xchacha20poly1305_ABYTES:
            raise _bad("damaged", "a part of it is too large")
        try:
            piece, tag = pull(state, _exactly(source, size), None)  # type: ignore[arg-type]
        except (CryptoError, ValueError) as error:
            raise _bad("damaged", "a part of it was changed") from error
        if piece:
            yield piece
    if source.read(1):
        raise _bad("damaged", "data follows its end")


def _exactly(source: IO[bytes], size: int) -> bytes:
    raw = source.read(size)
    if len(raw) != size:
        raise _bad("truncated", "it ends too early")
    return raw


def _bad(code: str, cause: str) -> InvalidRequest:
    return InvalidRequest(f"cannot open the sealed session: {cause}", field="archive", code=code)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
