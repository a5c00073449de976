"""The fleet's key: 32 random bytes in a file that every machine of the fleet has, mode 0600. The
store never gets it.
"""

import os
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path

from agent.errors import ConfigError, VaultError
from agent.files import open_plain

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
        """The same for the same key alone; of 32 random bytes it betrays none."""
        return blake2b(_MAGIC, key=self._secret, digest_size=8).hexdigest()

    def seal(self, context: bytes, data: bytes) -> bytes:
        """Only `open` with the same key and the same context gives `data` back."""
        from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as encrypt

        nonce = os.urandom(_NONCE)
        return _MAGIC + nonce + encrypt(data, _MAGIC + context, nonce, self._secret)

    def open(self, context: bytes, sealed: bytes) -> bytes:
        """VaultError for all that was not sealed with this key in this context."""
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
