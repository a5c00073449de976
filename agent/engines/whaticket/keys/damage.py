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

from agent.engines.raw import inside, text

_JUDGED = re.compile(r"(?:session|identity-key|sender-key|pre-key)-.+")
_MEMORY = "sender-key-memory-"
_SENDER_KEY = re.compile(
    r"sender-key-(?P<group>[^/]{1,200}?)(?:--|::)(?P<user>\d{1,20})(?:_\d{1,3})?(?:--|::)\d{1,5}"
)


def worth_reading(name: str) -> bool:
    return _JUDGED.fullmatch(name) is not None


def is_record(name: str, raw: bytes) -> bool:
    """Whether Baileys can read and use what is stored under that name; `null` is an absent one."""
    record = _parsed(raw)
    if record is _BROKEN:
        return False
    kind = next((kind for kind in _KINDS if name.startswith(kind)), "")
    return record is None or not kind or _KINDS[kind](record)


def own_groups(damaged: Iterable[str], own_users: Iterable[str]) -> frozenset[str]:
    """The groups whose damaged sender key is the account's own: it must be given out again."""
    users = frozenset(own_users)
    keys = (_SENDER_KEY.fullmatch(name) for name in damaged)
    return frozenset(key["group"] for key in keys if key and key["user"] in users)


def memory_of(group: str) -> str:
    """The key that tells who has our sender key of that group."""
    return f"{_MEMORY}{group}"


def state_of_creds(raw: bytes) -> str:
    """unpaired, paired or damaged."""
    creds = _parsed(raw)
    if not isinstance(creds, dict):
        return "damaged"
    return "paired" if inside(creds, "me", "id") else "unpaired"


def own_users(raw: bytes) -> frozenset[str]:
    """The digits of the account's own number and LID, by its creds."""
    creds = _parsed(raw)
    ids = (text(inside(creds, "me", kind)) for kind in ("id", "lid"))
    return frozenset(digits[0] for id in ids if (digits := re.match(r"\d+", id)))


def _is_session(raw: Any) -> bool:
    """libsignal's record: sessions by their base key, each with its ratchet and its chains."""
    if not isinstance(raw, Mapping):
        return False
    if _bytes(raw) is not None:
        return bool(_bytes(raw))  # forks that store libsignal's own bytes
    sessions = raw.get("_sessions")
    return isinstance(sessions, Mapping) and all(map(_is_entry, sessions.values()))


def _is_entry(raw: Any) -> bool:
    if not isinstance(raw, Mapping) or not isinstance(raw.get("_chains"), Mapping):
        return False
    ratchet, index = raw.get("currentRatchet"), raw.get("indexInfo")
    if not isinstance(ratchet, Mapping) or not isinstance(index, Mapping):
        return False
    pair = ratchet.get("ephemeralKeyPair")
    if not isinstance(pair, Mapping):
        return False
    keys = (
        *(pair.get("pubKey"), pair.get("privKey"), ratchet.get("rootKey")),
        *(ratchet.get("lastRemoteEphemeralKey"), index.get("baseKey")),
        index.get("remoteIdentityKey"),
    )
    return all(map(_is_key, keys)) and all(map(_is_chain, raw["_chains"].values()))


def _is_chain(raw: Any) -> bool:
    if not isinstance(raw, Mapping) or not isinstance(raw.get("chainKey"), Mapping):
        return False
    keys = raw.get("messageKeys")
    return isinstance(keys, Mapping) and all(isinstance(key, str) for key in keys.values())


def _is_key(raw: Any) -> bool:
    return isinstance(raw, str) and len(_decoded(raw) or b"") in (32, 33)


def _is_sender_key(raw: Any) -> bool:
    """Baileys stores the states of a sender key as JSON in bytes; some forks as they are."""
    states = _parsed(_bytes(raw) or b"") if isinstance(raw, Mapping) else raw
    return isinstance(states, list) and all(map(_is_state, states))


def _is_state(raw: Any) -> bool:
    if not isinstance(raw, Mapping):
        return False
    chain, signing = raw.get("senderChainKey"), raw.get("senderSigningKey")
    return isinstance(chain, Mapping) and isinstance(signing, Mapping)


def _is_pair(raw: Any) -> bool:
    """A pre-key: both halves are bytes of a key's length."""
    if not isinstance(raw, Mapping):
        return False
    return all(len(_bytes(raw.get(half)) or b"") in (32, 33) for half in ("private", "public"))


def _is_identity(raw: Any) -> bool:
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
    text = text.rstrip("=").translate(_URL_SAFE)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


_URL_SAFE = str.maketrans("-_", "+/")


_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "session-": _is_session,
    "identity-key-": _is_identity,
    _MEMORY: lambda raw: isinstance(raw, Mapping),
    "sender-key-": _is_sender_key,
    "pre-key-": _is_pair,
}
