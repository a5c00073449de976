"""An invitation to pair an instance at a desk, as one line for a person."""

import base64
import hashlib
from dataclasses import dataclass, field

from agent.core.words import InstanceId, parse_instance_id
from agent.errors import InvalidRequest

_FORMAT = "wap1"
_KEY = 32
HEADER = "X-Pairing-Invite"
"""Carries the `door` of an invitation to the agent."""


@dataclass(frozen=True, slots=True)
class Invitation:
    id: InstanceId
    public_key: bytes
    """The desk seals the session for this key."""
    token: str = field(default="", repr=False)
    """A secret; "" = only the key was given."""
    url: str = ""
    """The agent's address; "" = the session becomes a file."""

    def line(self) -> str:
        return ":".join((_FORMAT, self.id, key_text(self.public_key), self.token, self.url))

    @property
    def door(self) -> str:
        """A hash of the token that the desk sends openly; the upload carries the token, sealed."""
        return hashlib.sha256(f"wa-agent door {self.token}".encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public_key)


def fingerprint(public_key: bytes) -> str:
    """Half of the key's SHA-256, short enough for two people to compare."""
    return hashlib.sha256(public_key).hexdigest()[:32]


def key_text(public_key: bytes) -> str:
    return base64.urlsafe_b64encode(public_key).decode().rstrip("=")


def parse_invitation(text: str, id: InstanceId) -> Invitation:
    """Reads the line, or a public key alone, which names no instance: then `id` does."""
    parts = text.strip().split(":", 4)
    if len(parts) == 1:
        return Invitation(id, _parse_key(parts[0]))
    if len(parts) != 5 or parts[0] != _FORMAT or not parts[3]:
        raise InvalidRequest(
            f"cannot read the invitation: it is neither a line {_FORMAT}:… nor a public key",
            field="to",
        )
    return Invitation(parse_instance_id(parts[1]), _parse_key(parts[2]), parts[3], parts[4])


def _parse_key(text: str) -> bytes:
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), "-_", validate=True)
    except ValueError:
        key = b""
    if len(key) != _KEY:
        raise InvalidRequest("cannot read the invitation: its public key is damaged", field="to")
    return key
