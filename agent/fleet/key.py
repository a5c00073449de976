"""The fleet's key: 32 random bytes in a file that every machine of the fleet has, mode 0600.

Each use has a secret of its own, derived from it. The database never gets any of them.
"""

import os
import stat
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from agent.errors import ConfigError, VaultError

_KEY = 32
_MAGIC = b"WA-COPY-1\n"
_FINGERPRINT = 8
_NONCE = 24


@dataclass(frozen=True, slots=True)
class FleetKey:
    _secret: bytes = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> "FleetKey":
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _unusable(path, "it is missing; copy it from another machine of it") from None
        except OSError as error:
            raise _unusable(path, error.strerror or str(error)) from error
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
                raise _unusable(path, "it is no plain file of mode 0600")
            if status.st_uid not in (0, os.geteuid()):
                raise _unusable(path, f"it belongs to user {status.st_uid}")
            secret = file.read(_KEY + 1)
        if len(secret) != _KEY:
            raise _unusable(path, f"it does not hold {_KEY} bytes")
        return cls(secret)

    @classmethod
    def make(cls, path: Path) -> "FleetKey":
        """A new one in a new file; ConfigError where there is a file already."""
        secret = os.urandom(_KEY)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
                file.write(secret)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigError(
                f"cannot write the fleet's key {path}: {error.strerror}", field="fleet.key_file"
            ) from error
        return cls(secret)

    @property
    def bearer(self) -> str:
        """What machines of the fleet show each other."""
        return self._derived(b"wa-fleet-bearer").hex()

    @property
    def profiles_password(self) -> str:
        """Of the restic repository."""
        return self._derived(b"wa-fleet-restic").hex()

    @property
    def fingerprint(self) -> str:
        """For comparing the keys of two machines; it tells nothing of the key."""
        return self._derived(b"wa-fleet-fp")[:_FINGERPRINT].hex()

    def seal(self, context: bytes, data: bytes) -> bytes:
        """Only `open` with the same key and the same context gives `data` back."""
        from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as encrypt

        head, nonce = _MAGIC + bytes.fromhex(self.fingerprint), os.urandom(_NONCE)
        sealed = encrypt(data, head + context, nonce, self._derived(b"wa-fleet-copies"))
        return head + nonce + sealed

    def open(self, context: bytes, sealed: bytes) -> bytes:
        """VaultError: `other_key`, or `damaged` for all that was not sealed in this context."""
        from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as decrypt
        from nacl.exceptions import CryptoError

        size = len(_MAGIC) + _FINGERPRINT
        head, nonce = sealed[:size], sealed[size : size + _NONCE]
        if not head.startswith(_MAGIC) or len(nonce) < _NONCE:
            raise VaultError(
                "cannot open the stored copy: it does not begin as one", code="damaged"
            )
        if head[len(_MAGIC) :].hex() != self.fingerprint:
            raise VaultError(
                f"cannot open the stored copy: it is sealed with the fleet key"
                f" {head[len(_MAGIC) :].hex()}, this machine has {self.fingerprint}",
                code="other_key",
            )
        key = self._derived(b"wa-fleet-copies")
        try:
            return decrypt(sealed[size + _NONCE :], head + context, nonce, key)
        except (CryptoError, ValueError) as error:
            raise VaultError(
                "cannot open the stored copy: it was changed, cut short, or is of another session"
                " or epoch",
                code="damaged",
            ) from error

    def _derived(self, use: bytes) -> bytes:
        return blake2b(key=self._secret, person=use, digest_size=_KEY).digest()


def copy_context(id: str, epoch: int) -> bytes:
    """A copy of one session in one epoch: it opens as no other."""
    return f"copy {epoch} {id}".encode()


def change_context(id: str, epoch: int, number: int, after: int) -> bytes:
    """What changed after one copy or change of a session: it follows no other."""
    return f"change {epoch} {number} {after} {id}".encode()


def piece_context(id: str, epoch: int, name: str) -> bytes:
    """A piece of what goes with a session: it opens as no other one of it."""
    return f"piece {epoch} {id} {name}".encode()


def _unusable(path: Path, cause: str) -> ConfigError:
    return ConfigError(
        f"cannot use the fleet's key {path}: {cause}", field="fleet.key_file", code="fleet_key"
    )
