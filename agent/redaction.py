"""Takes out of a text whatever opens a door: the last line of defence of log and bundle.

No code should log a key or a QR code; this filter removes them all the same. It must stay cheap: an
expression is tried only where a text holds what it begins with, and none looks far twice.
"""

import re

REMOVED = "[removed]"
CODE_REMOVED = "[qr removed]"
_LED = rf"\1{REMOVED}"
"""Replacement of a secret; the words that lead to it stay."""

_NAMES = (
    r"(?:authorization|api[_-]?key|passw(?:or)?d|passphrase|secret(?:[_-]?key)?|token"
    r"|(?:private|priv|root|chain|noise|identity)[_-]?key)"
)
# One word is too common to be a name by itself: it counts as one of JSON or of a setting.
_SHORT = r"""(?:["'](?:key|hook)\\*["']\s*:|\b(?:key|hook)\s*=)"""
_SEPARATOR = r"""\\*["']?\s*[=:]\s*"""
# A quoted value ends at its own quote: not at a blank, nor at a quote that is escaped in it.
# Within a quoted text its quotes are escaped themselves; then it ends at one escaped as they are.
_VALUE = r"""
    b?(?: "(?!\[removed\])(?:[^"\\]|\\+.)*
        | '(?!\[removed\])(?:[^'\\]|\\+.)*
        | (?P<escaped>\\+["'])(?:(?!(?<!\\)(?P=escaped)).)*
        | (?!\[removed\]|(?:null|none|true|false|bearer|basic|buffer)\b)
          [^\s"'\\,;&<>\[{][^\s"',;&<>]*
      )
"""


# Each row begins with a text in lower case: where it does not occur, the expression is not tried,
# nor compiled, which would take each new worker 3 ms.
_PATTERNS: tuple[tuple[str, str, str], ...] = (
    ("wak_", r"\bwak_[A-Za-z0-9_~.+/=-]+", f"wak_{REMOVED}"),
    ("://", r'(://)[^/\s"]*@', rf"\1{REMOVED}@"),
    # WhatsApp's code: a version, @, then comma separated base64; or the link that carries it
    ("@", r"\b\d@[A-Za-z0-9+/=_-]{16,}(?:,[A-Za-z0-9+/=_-]+)*", CODE_REMOVED),
    ("linked_devices", r"(?i)\bwa\.me/settings/linked_devices\S+", CODE_REMOVED),
    ("sandbox-qr:", r"(?i)\bsandbox-qr:\S+", CODE_REMOVED),
    ("data:image/", r"""(?i)data:image/[^\s"'\\]+""", f"data:image/{CODE_REMOVED}"),
    # A key may stand over several lines, each redacted alone: this matches the first one, too.
    (
        "private key",
        r"(?s)(-----BEGIN [A-Z ]{0,40}PRIVATE KEY[A-Z ]{0,9}-----)(?:(?!-----END ).)+",
        _LED,
    ),
    (
        "ing",
        r"((?i:pairing|linking)[ _-]?(?i:code)\W{1,5}(?:is )?)[A-Z0-9]{4}-?[A-Z0-9]{4}\b",
        _LED,
    ),
    # A cookie's line holds several values, and each server calls its own as it likes.
    ("cookie", r"""(?i)(cookie\\*["']?\s*[=:]\s*\\*["']?)(?!\[removed\])[^"'\r\n\\]+""", _LED),
    ("jrt=", r"""(?i)\b(jrt=)(?!\[removed\])[^\s"',;]+""", _LED),
    ("eyj", r"\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*", REMOVED),
    ("bearer", r"(?i)\b(bearer)(\s+)[A-Za-z0-9_~.+/=-]{6,}", rf"\1\2{REMOVED}"),
    ("basic", r"(?i)\b(basic)(\s+)[A-Za-z0-9_~.+/=-]{6,}", rf"\1\2{REMOVED}"),
    # Bytes as node shows them and as it stores them: a session's keys.
    ("<buffer", r"(?i)<Buffer [0-9a-f ]+[^>\n]*>?", f"<Buffer {REMOVED}>"),
    (
        "buffer",
        r"""(?i)(buffer\\*["'],\s*\\*["']?data\\*["']?:\s*)"""
        r"""(?:\\*["'](?!\[removed)[^"'\\]*\\*["']?|\[[\d,\s]*\]?)""",
        rf'\1"{REMOVED}"',
    ),
)
_SOME_NAME = r"""(?:authorization|key|passw(?:or)?d|passphrase|secret|token|hook)\\*["']?\s*[=:]"""
_NAMED = rf"(?isx)(?P<name>(?:{_NAMES}{_SEPARATOR}|{_SHORT}\s*))(?P<value>{_VALUE})"


def redact(text: str) -> str:
    """Return the text without secrets. What stands around them can still be read."""
    lower = text.lower()
    for hint, expression, instead in _PATTERNS:
        if hint in lower:
            text = re.sub(expression, instead, text)
    return re.sub(_NAMED, _without_value, text) if re.search(_SOME_NAME, lower) else text


def _without_value(match: re.Match[str]) -> str:
    """Return a match without its value: name and opening quote stay, so the rest can be read."""
    value = match["value"].removeprefix("b")
    quote = match["escaped"] or (value[0] if value[0] in "\"'" else "")
    return f"{match['name']}{quote}{REMOVED}"


def mark_of(peer: str) -> str:
    """Return the mark that a log line has in place of a contact's number: the same contact has the
    same mark. Four signs: enough to tell a few contacts apart, too few to find a number by trying
    all."""
    from hashlib import sha256  # half a megabyte of OpenSSL that most workers never need

    digest = sha256(peer.encode("utf-8", "surrogateescape")).hexdigest()
    return f"contact #{digest[:4]}"
