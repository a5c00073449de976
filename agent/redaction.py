"""Takes out of a text whatever opens a door: the last line of defence of log and bundle.

No code should log a key or a QR code; this filter removes them all the same. It must stay cheap: an
expression is tried only where a text holds what it begins with, and none looks far twice.
"""

import re

REMOVED = "[removed]"
CODE_REMOVED = "[qr removed]"

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


_ANY_CASE, _LONG = re.IGNORECASE, re.IGNORECASE | re.VERBOSE | re.DOTALL

# What stands first in lower case: where it does not occur, the expression is not tried.
_PATTERNS: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("wak_", re.compile(r"\bwak_[A-Za-z0-9_~.+/=-]+"), f"wak_{REMOVED}"),
    ("://", re.compile(r'(://)[^/\s"]*@'), rf"\1{REMOVED}@"),
    # WhatsApp's code: a version, @, then comma separated base64; or the link that carries it
    (
        "@",
        re.compile(r"\b\d@[A-Za-z0-9+/=_-]{16,}(?:,[A-Za-z0-9+/=_-]+)*"),
        CODE_REMOVED,
    ),
    (
        "linked_devices",
        re.compile(r"\bwa\.me/settings/linked_devices\S+", _ANY_CASE),
        CODE_REMOVED,
    ),
    ("sandbox-qr:", re.compile(r"\bsandbox-qr:\S+", _ANY_CASE), CODE_REMOVED),
    (
        "data:image/",
        re.compile(r"""data:image/[^\s"'\\]+""", _ANY_CASE),
        f"data:image/{CODE_REMOVED}",
    ),
    # Of a key over several lines, each of which is redacted alone, this is the first one.
    (
        "private key",
        re.compile(
            r"(-----BEGIN [A-Z ]{0,40}PRIVATE KEY[A-Z ]{0,9}-----)(?:(?!-----END ).)+", re.DOTALL
        ),
        rf"\1{REMOVED}",
    ),
    (
        "ing",
        re.compile(
            r"((?i:pairing|linking)[ _-]?(?i:code)\W{1,5}(?:is )?)[A-Z0-9]{4}-?[A-Z0-9]{4}\b"
        ),
        rf"\1{REMOVED}",
    ),
    # A cookie's line holds several values, and each server calls its own as it likes.
    (
        "cookie",
        re.compile(r"""(cookie\\*["']?\s*[=:]\s*\\*["']?)(?!\[removed\])[^"'\r\n\\]+""", _ANY_CASE),
        rf"\1{REMOVED}",
    ),
    ("jrt=", re.compile(r"""\b(jrt=)(?!\[removed\])[^\s"',;]+""", _ANY_CASE), rf"\1{REMOVED}"),
    ("eyj", re.compile(r"\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*"), REMOVED),
    (
        "bearer",
        re.compile(r"\b(bearer)(\s+)[A-Za-z0-9_~.+/=-]{6,}", _ANY_CASE),
        rf"\1\2{REMOVED}",
    ),
    ("basic", re.compile(r"\b(basic)(\s+)[A-Za-z0-9_~.+/=-]{6,}", _ANY_CASE), rf"\1\2{REMOVED}"),
    # Bytes as node shows them and as it stores them: a session's keys.
    ("<buffer", re.compile(r"<Buffer [0-9a-f ]+[^>\n]*>?", _ANY_CASE), f"<Buffer {REMOVED}>"),
    (
        "buffer",
        re.compile(
            r"""(buffer\\*["'],\s*\\*["']?data\\*["']?:\s*)"""
            r"""(?:\\*["'](?!\[removed)[^"'\\]*\\*["']?|\[[\d,\s]*\]?)""",
            _ANY_CASE,
        ),
        rf'\1"{REMOVED}"',
    ),
)
_SOME_NAME = re.compile(
    r"""(?:authorization|key|passw(?:or)?d|passphrase|secret|token|hook)\\*["']?\s*[=:]"""
)
_NAMED = re.compile(rf"(?P<name>(?:{_NAMES}{_SEPARATOR}|{_SHORT}\s*))(?P<value>{_VALUE})", _LONG)


def redact(text: str) -> str:
    """The text without what opens a door. What stands around it can still be read."""
    lower = text.lower()
    for hint, expression, instead in _PATTERNS:
        if hint in lower:
            text = expression.sub(instead, text)
    return _NAMED.sub(_without_value, text) if _SOME_NAME.search(lower) else text


def _without_value(match: re.Match[str]) -> str:
    """The name stays, and the quote that opens the value: the rest of the text can be read on."""
    value = match["value"].removeprefix("b")
    quote = match["escaped"] or (value[0] if value[0] in "\"'" else "")
    return f"{match['name']}{quote}{REMOVED}"


def mark_of(peer: str) -> str:
    """What a log line says in place of a contact's number: the same contact has the same mark. Four
    signs: enough to tell a few contacts apart, too few to find a number by trying all."""
    from hashlib import sha256  # half a megabyte of OpenSSL that most workers never need

    digest = sha256(peer.encode("utf-8", "surrogateescape")).hexdigest()
    return f"contact #{digest[:4]}"
