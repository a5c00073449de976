"""Which stored records Baileys cannot use: cut short, empty, or not what their name says.

A record that only looks unusual is whole: damage must be certain, for the record is taken out.
Creds and app-state keys are not judged here: nothing may take those out.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agent.engines.base import inside, text

JUDGED = re.compile(r"(?:session|identity-key|sender-key|pre-key)-.+")
_MEMORY = "sender-key-memory-"
_SENDER_KEY = re.compile(
    r"sender-key-(?!memory-)(?P<group>[^/]{1,200}?)(?:--|::)(?P<user>\d{1,20})(?:_\d{1,3})?"
    r"(?:--|::)\d{1,5}"
)


def is_record(key: str, raw: bytes) -> bool:
    """True if Baileys can use what is stored under that name; `null` is an absent one."""
    record = _parsed(raw)
    if record is _BROKEN:
        return False
    kind = next((kind for kind in _KINDS if key.startswith(kind)), "")
    return record is None or not kind or _KINDS[kind](record)


def notes_of_own(damaged: Iterable[str], own_users: Iterable[str]) -> set[str]:
    """The notes of who has the account's own sender key, of each group whose key is damaged: it
    must be given out again."""
    keys = (_SENDER_KEY.fullmatch(key) for key in damaged)
    return {_MEMORY + found["group"] for found in keys if found and found["user"] in own_users}


def state_of_creds(raw: bytes | None) -> str:
    """absent, unpaired, paired or damaged."""
    if raw is None:
        return "absent"
    creds = _parsed(raw)
    if not isinstance(creds, dict):
        return "damaged"
    return "paired" if inside(creds, "me", "id") else "unpaired"


def own_users(raw: bytes) -> frozenset[str]:
    """The digits of the account's own number and LID, by its creds."""
    ids = (text(inside(_parsed(raw), "me", kind)) for kind in ("id", "lid"))
    return frozenset(digits[0] for id in ids if (digits := re.match(r"\d+", id)))


def _is_session(raw: Any) -> bool:
    """libsignal's record: sessions by their base key, each with its ratchet and its chains."""
    if not isinstance(raw, Mapping):
        return False
    if (own := _bytes(raw)) is not None:
        return bool(own)  # forks that store libsignal's own bytes
    sessions = raw.get("_sessions")
    return isinstance(sessions, Mapping) and all(map(_is_entry, sessions.values()))


def _is_entry(raw: Any) -> bool:
    ratchet, index = inside(raw, "currentRatchet"), inside(raw, "indexInfo")
    keys = [inside(ratchet, "ephemeralKeyPair", half) for half in ("pubKey", "privKey")]
    keys += [inside(ratchet, name) for name in ("rootKey", "lastRemoteEphemeralKey")]
    keys += [inside(index, name) for name in ("baseKey", "remoteIdentityKey")]
    chains = inside(raw, "_chains")
    return isinstance(chains, Mapping) and all(map(_is_key, keys)) and _are_chains(chains)


def _are_chains(chains: Mapping[str, Any]) -> bool:
    parts = [(inside(it, "chainKey"), inside(it, "messageKeys")) for it in chains.values()]
    if not all(isinstance(part, Mapping) for pair in parts for part in pair):
        return False
    return all(isinstance(key, str) for _, keys in parts for key in keys.values())


def _is_key(raw: Any) -> bool:
    return isinstance(raw, str) and len(_decoded(raw) or b"") in (32, 33)


def _is_sender_key(raw: Any) -> bool:
    """Baileys stores the states of a sender key as JSON in bytes; some forks as they are."""
    states = _parsed(_bytes(raw) or b"") if isinstance(raw, Mapping) else raw
    names = ("senderChainKey", "senderSigningKey")
    return isinstance(states, list) and all(
        isinstance(inside(state, name), Mapping) for state in states for name in names
    )


def _is_pair(raw: Any) -> bool:
    """A pre-key: both halves are bytes of a key's length."""
    return all(_is_bytes_of_key(inside(raw, half)) for half in ("private", "public"))


def _is_bytes_of_key(raw: Any) -> bool:
    return len(_bytes(raw) or b"") in (32, 33)


_BROKEN = object()


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return _BROKEN


def _bytes(raw: Any) -> bytes | None:
    """All forms of bytes that BufferJSON's reviver takes: base64 text or a list of numbers, marked
    by `type` or (in older ones) `buffer`, and an object of numbers by their places."""
    if not isinstance(raw, Mapping):
        return None
    if raw.get("type") == "Buffer" or raw.get("buffer") is True:
        data = raw.get("data") or raw.get("value")
        if isinstance(data, str):
            return _decoded(data)
    else:
        data = list(raw.values()) if raw and all(map(str.isdecimal, raw)) else None
    try:
        return bytes(data) if isinstance(data, list) else None
    except (ValueError, TypeError):
        return None


def _decoded(text: str) -> bytes | None:
    """As Node reads base64: either alphabet, with or without padding."""
    text = text.rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "session-": _is_session,
    "identity-key-": _is_bytes_of_key,
    _MEMORY: lambda raw: isinstance(raw, Mapping),
    "sender-key-": _is_sender_key,
    "pre-key-": _is_pair,
}
