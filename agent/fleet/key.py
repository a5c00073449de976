"""The fleet's key: 32 random bytes in a file that every machine of the fleet has, mode 0600.

Each use has a secret of its own, derived from it. The store never gets any of them.
"""

import os
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path

from agent.errors import ConfigError, VaultError
from agent.files import open_plain

_KEY, _NONCE = 32, 24
_MAGIC = b"WA-COPY-2\n"


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
        if status.st_uid not in (0, os.geteuid()):
            raise _unusable(path, f"it belongs to user {status.st_uid}")
        if len(secret) != _KEY:
            raise _unusable(path, f"it does not hold {_KEY} bytes")
        return cls(secret)

    @property
    def fingerprint(self) -> str:
        """For comparing the keys of two machines; it tells nothing of the key."""
        return self.derived(b"wa-fleet-fp")[:8].hex()

    def seal(self, context: bytes, data: bytes) -> bytes:
        """Only `open` with the same key and the same context gives `data` back."""
        from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as encrypt

        nonce, head = os.urandom(_NONCE), self._head()
        return head + nonce + encrypt(data, head + context, nonce, self.derived(b"wa-fleet-copies"))

    def open(self, context: bytes, sealed: bytes) -> bytes:
        """VaultError: `other_key`, or `damaged` for all that was not sealed in this context."""
        from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as decrypt
        from nacl.exceptions import CryptoError

        head = self._head()
        its, nonce = sealed[: len(head)], sealed[len(head) : len(head) + _NONCE]
        if its != head and its.startswith(_MAGIC) and len(nonce) == _NONCE:
            found, mine = its[len(_MAGIC) :].hex(), self.fingerprint
            words = f"it is sealed with the fleet key {found}, this machine has {mine}"
            raise VaultError(f"cannot open the copy: {words}", code="other_key")
        try:
            rest = sealed[len(head) + _NONCE :]
            return decrypt(rest, its + context, nonce, self.derived(b"wa-fleet-copies"))
        except (CryptoError, ValueError, TypeError) as error:
            words = "it was changed, cut short, or is of another session, epoch or number"
            raise VaultError(f"cannot open the copy: {words}", code="damaged") from error

    def derived(self, use: bytes) -> bytes:
        """A secret for one use, which tells nothing of the key or of another use."""
        return blake2b(key=self._secret, person=use, digest_size=_KEY).digest()

    def _head(self) -> bytes:
        return _MAGIC + bytes.fromhex(self.fingerprint)


def _unusable(path: Path, cause: str) -> ConfigError:
    return ConfigError(f"cannot use the fleet's key {path}: {cause}", code="fleet_key")
