"""The credentials of a session: whether they fit together, and what of them never changes once a
device is linked. Standard library only."""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from agent.engines.files import sha256

CREDS = "creds.json"
_PRIME = 2**255 - 19
_KEYS = ("noiseKey", "signedIdentityKey", "signedPreKey")
_FIXED = ("noiseKey", "signedIdentityKey")
_SIGNED = ("details", "accountSignature", "accountSignatureKey", "deviceSignature")


def key_fault(creds: Mapping[str, Any]) -> str:
    """Which key does not fit its public half, which WhatsApp and the contacts have; \"\" = none."""
    for name in _KEYS:
        pair = _table(creds.get(name))
        pair = _table(pair.get("keyPair", pair))
        private, public = _bytes(pair.get("private")), _bytes(pair.get("public"))
        if len(private) == 32 and public and public_of(private) != public[-32:]:
            return f"the private and the public half of {name} do not fit"
    return ""


def fixed_mark(creds: Mapping[str, Any]) -> str:
    """The same for these credentials at any time; another one for any others. Tells no key."""
    return sha256(json.dumps([value for _, value in _fixed(creds)]).encode())


def fixed_marks(creds: Mapping[str, Any]) -> dict[str, str]:
    """One of each field, to name the one that changed. Tells no key."""
    return {name: sha256(json.dumps(value).encode())[:16] for name, value in _fixed(creds)}


def _fixed(creds: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    me, account = _table(creds.get("me")), _table(creds.get("account"))
    yield "me.id", me.get("id")
    for name in ("registrationId", "advSecretKey"):
        yield name, creds.get(name)
    for key in _FIXED:
        for half in ("private", "public"):
            yield f"{key}.{half}", text_of(_table(creds.get(key)).get(half))
    for name in _SIGNED:
        yield f"account.{name}", text_of(account.get(name))


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def account_of(creds: Mapping[str, Any]) -> str:
    """The digits of its number; \"\" = none."""
    id = _table(creds.get("me")).get("id")
    digits = re.match(r"\d{5,20}(?!\d)", id) if isinstance(id, str) else None
    return digits.group() if digits else ""


def text_of(value: Any) -> str:
    """Bytes as base64, however this version of the library writes them."""
    return value if isinstance(value, str) else base64.b64encode(_bytes(value)).decode()


def _bytes(value: Any) -> bytes:
    """As the library writes them, or as older versions did; b"" = neither."""
    data = value.get("data") if isinstance(value, dict) else None
    try:
        return base64.b64decode(data) if isinstance(data, str) else bytes(data or b"")
    except (ValueError, TypeError):
        return b""


def public_of(private: bytes) -> bytes:
    """X25519 of the base point (RFC 7748), by the Montgomery ladder. It is no secret from this
    machine how long that takes."""
    scalar = int.from_bytes(private, "little") & ~7
    scalar = scalar & (2**254 - 1) | 2**254
    x2, z2, x3, z3 = 1, 0, 9, 1
    swapped = 0
    for at in range(254, -1, -1):
        bit = scalar >> at & 1
        if bit != swapped:
            x2, z2, x3, z3 = x3, z3, x2, z2
        swapped = bit
        plus, minus = x2 + z2, x2 - z2
        square, other = plus * plus % _PRIME, minus * minus % _PRIME
        left, right = (x3 - z3) * plus % _PRIME, (x3 + z3) * minus % _PRIME
        x3, z3 = (left + right) ** 2 % _PRIME, 9 * (left - right) ** 2 % _PRIME
        difference = square - other
        x2, z2 = square * other % _PRIME, difference * (square + 121665 * difference) % _PRIME
    if swapped:
        x2, z2 = x3, z3
    return (x2 * pow(z2, _PRIME - 2, _PRIME) % _PRIME).to_bytes(32, "little")
