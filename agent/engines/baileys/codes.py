"""The library's words for the end of a connection → the agent's reasons. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_BY_CODE = {
    401: "logout",
    402: "temporary_ban",
    403: "banned",
    405: "client_outdated",
    406: "banned",
    408: "connection_lost",
    409: "proxy_block",
    411: "multidevice_mismatch",
    428: "connection_lost",
    440: "conflict",
    500: "bad_session",
    503: "service_unavailable",
    515: "restart_required",
}

CRYPTO_WORDS = {
    "bad_mac": "Bad MAC",
    "prekey": "Invalid PreKey ID",
    "no_session": "No session record",
    "sender_key": "No SenderKeyRecord found for decryption",
    "behind": "SessionError: Over 2000 messages into the future!",
    "duplicate": "MessageCounterError: Key used already or never filled",
    "undecryptable": "failed to decrypt message",
}
"""What a decryption failure is called in the table of patterns; any other failure is no fault."""


@dataclass(frozen=True, slots=True)
class Ended:
    reason: str
    raw: str
    until_wall: float | None = None


_FINAL = frozenset({401, 402, 403, 405, 406, 409, 411})
"""After these no login follows, or a late one."""


def why_closed(
    code: int | None,
    raw: str,
    *,
    paired: bool,
    proved: bool = True,
    codes: int = 1,
    expire: float | None,
    now_wall: float,
) -> Ended:
    """`proved`: it refused a login, or says that the device was removed; else the next login tells
    what is so. `codes`: how many this login showed. `expire`: seconds until a ban ends, where
    WhatsApp said so."""
    words = f"{code} {raw}" if code is not None else raw
    if code is None:
        return Ended("connection_lost", words)
    if raw.startswith("WebSocket Error"):
        # It never reached WhatsApp: the number is the library's, or that of whoever answered.
        return Ended("connection_lost", words)
    if code == 408 and not paired and codes:
        return Ended("qr_idle", words)
    if code in _FINAL and not proved:
        return Ended("conflict" if "(conflict)" in raw else "connection_lost", words)
    until = now_wall + expire if code == 402 and expire else None
    return Ended(_BY_CODE.get(code, "unknown"), words, until)


def stray_words(event: Mapping[str, Any]) -> str:
    """What an error says that the library left unhandled; its own text may quote a message."""
    name, code = str(event.get("name", ""))[:40], str(event.get("code", ""))[:40]
    own = str(event.get("words", ""))[:200]
    return own or f"the library left an error unhandled: {name} {code}"
