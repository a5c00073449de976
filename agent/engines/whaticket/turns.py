"""The words of these servers for a connection that begins or ends, and their reasons."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from agent.engines.reason_codes import WEB_WORDS, WHATSAPP_CODES, web_reason


@dataclass(frozen=True, slots=True)
class Turn:
    """A connection that began or ended, as the log tells it."""

    session: str
    """What the log calls it; "" = it did not say."""
    open: bool
    reason: str = ""
    """Why it ended, "" where the log's words leave that open."""
    blocked: bool = False
    """Neither: its start failed because its old browser still runs."""
    at: float = 0.0
    """When the line was written; 0.0 where the reader was not asked to tell."""


_LINES = (
    re.compile(
        r"Socket {1,2}(?P<name>.{1,200}?) Connection Update (?P<state>open|close)\b(?P<why>.*)"
    ),
    re.compile(r"Session: (?P<name>.{1,200}?) (?P<state>READY)\b(?P<why>)"),
    re.compile(r"(?P<state>Disconnected) session: (?P<name>.{1,200}?), reason: (?P<why>.*)"),
    re.compile(r"(?P<state>DESCONECTOU) REASON: (?P<why>.{1,500})(?P<name>)"),
)
_CODE_OF_NAME: Mapping[str, int] = {
    "loggedOut": 401,
    "forbidden": 403,
    "connectionLost": 408,
    "timedOut": 408,
    "multideviceMismatch": 411,
    "connectionClosed": 428,
    "connectionReplaced": 440,
    "badSession": 500,
    "unavailableService": 503,
    "restartRequired": 515,
}
"""Baileys' DisconnectReason."""
_TEXTS: Mapping[str, str] = {
    # Only those that mean one thing: `Stream Errored (conflict)` is a logout as well as a
    # second copy, `Connection Failure` anything.
    "Intentional Logout": "logout",
    "QR refs attempts ended": "qr_idle",
    "Connection was lost": "connection_lost",
    "Connection Terminated": "connection_closed",
    "Connection Closed": "connection_closed",
    "restart required": "restart_required",
    "Multi-device beta not joined": "multidevice_mismatch",
}


_NAME = re.compile(r'"session(?:Id|Name)?"\s*:\s*"?([^",}]{1,200})')
_CODE = re.compile(r'"statusCode"\s*:\s*(\d{3})\b')


_BROWSER = re.compile(
    r"browser is already running for [^\s]{0,400}?session-(?:[A-Za-z]{1,20}[_-])?(?P<id>\d{1,20})\b"
)
"""Puppeteer names the profile's folder; whatsapp-web.js names that after the session's number."""


def read_turn(line: str, session: str = "") -> Turn | None:
    """`session`: what the line's surroundings call it; better than the name in the line."""
    if hit := _BROWSER.search(line):
        return Turn(session or hit["id"], False, blocked=True)
    for pattern in _LINES:
        hit = pattern.search(line)
        # Quoted text may be a contact's words.
        if hit and line.count('"', 0, hit.start()) % 2 == 0:
            opened = hit["state"] in ("open", "READY")
            reason = "" if opened else _reason(hit["why"].strip())
            name = hit["name"].strip() or _first(_NAME, hit["why"])
            return Turn(session or name, opened, reason)
    return None


def _reason(why: str) -> str:
    if number := _first(_CODE, why):
        return WHATSAPP_CODES.get(int(number), "")
    first = why.split(maxsplit=1)[0] if why else ""
    if (code := _CODE_OF_NAME.get(first)) is not None:
        return WHATSAPP_CODES[code]
    if first.upper() in WEB_WORDS:
        return web_reason(first.upper())
    return next((code for text, code in _TEXTS.items() if text in why), "")


def _first(pattern: re.Pattern[str], text: str) -> str:
    hit = pattern.search(text)
    return hit[1] if hit else ""
