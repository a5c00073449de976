"""Reads log lines about failing keys: which count, which are benign, which peer they name.

One table for engines' events, workers' output and backends' logs. Only names and peers are taken
from a line: some dumps hold private keys.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

OF_KEYS = ("crypto", "crypto_unknown", "crypto_stranger")
"""Kinds of errors about keys, as they are counted: troubles of their own cover them."""


class Effect(StrEnum):
    COUNTS = "counts"
    """The error counts towards a corrupted session."""
    REGENERATES = "regenerates"
    """The error counts, and only new keys with that peer help."""
    SUMMARY = "summary"
    """The line repeats one just before it in another channel; it counts if there was none."""
    BENIGN = "benign"


@dataclass(frozen=True, slots=True)
class CryptoPattern:
    name: str
    effect: Effect
    text: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class CryptoFinding:
    name: str
    effect: Effect
    peer: str = ""
    """The Signal address without its device ("" = not named)."""
    group: str = ""
    """The group in which the message was written; "" = to this session alone, or not known."""
    message: str = ""
    """The message's id, if the engine names it."""


def _pattern(name: str, effect: Effect, text: str) -> CryptoPattern:
    return CryptoPattern(name, effect, re.compile(text, re.IGNORECASE))


def _benign(name: str, text: str) -> CryptoPattern:
    return _pattern(name, Effect.BENIGN, text)


PATTERNS: tuple[CryptoPattern, ...] = (
    # Benign patterns first: some of them contain the words of a worse one.
    _benign("repair_at_work", r"MAC error detected, forcing immediate session recreation"),
    _benign("known_header", r"Failed to decrypt message with any known session"),
    _benign(
        "duplicate",
        r"Key used already or never filled|MessageCounterError|Received message with old counter",
    ),
    _benign(
        "session_turnover",
        r"Decrypted message with closed session|Closing (?:open )?session|Opening session"
        r"|Removing old closed session",
    ),
    _benign("absent_message", r"Message absent from node"),
    # Contacts, mutes and archives only; it heals by a snapshot of its own.
    _benign(
        "app_state",
        r"Invalid patch mac|HMAC (?:index|content) verification failed"
        r"|failed to verify LTHash|failed to find key .* to decode|myAppStateKey .* not present"
        r"|failed to sync (?:state|\w+) from v",
    ),
    # The session with that peer is far behind: an old backup was restored.
    _pattern("far_future", Effect.REGENERATES, r"Over \d+ messages into the future"),
    _pattern("bad_mac", Effect.COUNTS, r"Bad[ _-]?MAC"),
    # The peer used a key that is no longer held.
    _pattern(
        "prekey", Effect.REGENERATES, r"Invalid Pre-?Key ID|PreKeyError|Missing Signed-?PreKey"
    ),
    _pattern("no_matching_session", Effect.SUMMARY, r"No matching sessions found for message"),
    _pattern(
        "no_session",
        Effect.COUNTS,
        r"No session record|No session found to decrypt|No (?:open )?sessions\b",
    ),
    # The group key of one participant is missing or out of step.
    _pattern(
        "sender_key",
        Effect.COUNTS,
        r"No SenderKeyRecord found|No sender message key found|InvalidMessageException"
        r"|Invalid signature!",
    ),
    _pattern("session_error", Effect.COUNTS, r"SessionError|Session error:"),
    _pattern(
        "decrypt_failed",
        Effect.SUMMARY,
        r"(?:failed to decrypt|error decrypting|could not decrypt)",
    ),
    _pattern("undecryptable", Effect.COUNTS, r"UndecryptableMessage"),
)

_PEERS = (
    # libsignal names its queue after the address, so the stack under an error tells the peer.
    re.compile(r"\bat (?:async )?(?:Object\.)?(\d{5,20}(?:_\d+)?)\.\d+ \[as awaitable\]"),
    re.compile(r"\bat async (?:Object\.)?(\d{5,20}(?:_\d+)?)\.\d+\b"),
    re.compile(r'"participant(?:Alt)?"\s*:\s*"(\d{5,20})(?::\d+)?@'),
    re.compile(r'"remoteJid"\s*:\s*"(\d{5,20})(?::\d+)?@(?:s\.whatsapp\.net|lid)'),
    re.compile(r"\bfrom (\d{5,20})(?:[.:]\d+)*@(?:s\.whatsapp\.net|lid)"),
)
_LONGEST_LINE = 8192
_LONGEST_STACK = 30


LONGEST_OWN = 120
_OWN = "own: "
OWN_EFFECTS = (Effect.COUNTS, Effect.REGENERATES, Effect.BENIGN)


def own_pattern(entry: str) -> CryptoPattern:
    """A pattern from the settings, "effect: text": plain text in any case, never an expression.
    ValueError names the fault. The finding's name has the text, so that it reads back."""
    word, _, text = entry.partition(":")
    word, text = word.strip(), text.strip()
    if word not in OWN_EFFECTS:
        raise ValueError(f"{entry!r:.80} must begin with {' or '.join(OWN_EFFECTS)}, and a colon")
    if not 3 <= len(text) <= LONGEST_OWN or not text.isprintable():
        raise ValueError(f"the text of {entry!r:.80} must be 3 to {LONGEST_OWN} printable signs")
    if set(text) & set("\"'`"):
        raise ValueError(f"{entry!r:.80} must have no quotes: quoted text says nothing of keys")
    return CryptoPattern(f"{_OWN}{text}", Effect(word), re.compile(re.escape(text), re.I))


def read_line(line: str, own: Iterable[CryptoPattern] = ()) -> CryptoFinding | None:
    """Return the finding of one line about keys; the settings' own patterns go first."""
    line = line[:_LONGEST_LINE]
    for pattern in (*own, *PATTERNS):
        if pattern.text.search(line):
            return CryptoFinding(pattern.name, pattern.effect, peer_in(line))
    return None


_STAMPS = (
    r"(?:\[[^\]]{0,60}\]|\([^)]{0,60}\)|\d+\|[^|]{1,60}\||(?<!\d)\d{1,4}(?!\d)|[.,]\d{1,9}"
    r"|[\s:,.TZ/+-]|[AP]M\b){0,40}"
)
_LEVEL = re.compile(
    rf"{_STAMPS}(?:(?P<quiet>trace|debug|info|log|verbose|http|notice|silly)"
    rf"|warn(?:ing)?|error|fatal|critical)(?=\s|:|\]|$)",
    re.IGNORECASE,
)
_TAGGED = re.compile(
    rf"{_STAMPS}\[(?:(?P<quiet>trace|debug|info|log|verbose|http|notice|silly)"
    r"|warn(?:ing)?|error|fatal|critical)\]",
    re.IGNORECASE,
)
_NOT_SAID = re.compile(_STAMPS)
_QUOTED = re.compile(
    r'(?P<contact>"(?:participant(?:Alt)?|remoteJid)"\s*:\s*"\d[\d:]*@[\w.]+")'
    r'|"(?:[^"\\]|\\.?)*(?:"|$)|`[^`]*(?:`|$)|(?<!\w)\'(?:[^\'\\]|\\.?|\'(?=\w))*(?:\'|$)'
)
_OUTERMOST = re.compile(r"\".*\"|`.*`|“.*”|(?<!\w)'.*'(?!\w)")
_STACK = re.compile(r'"stack"\s*:\s*"((?:[^"\\]|\\.)*)')
_LEAD = re.compile(
    r"(?:Session |Unhandled |Uncaught )?\w*(?:err|exception|rejection|fail|fatal|falha|decrypt"
    r"|libsignal)[^:]{0,60}:\s*",
    re.IGNORECASE,
)
_JSON_LEVEL = re.compile(r'"level"\s*:\s*(\d{1,3})\b')
_WARN = 40
"""pino's number of that level."""


def is_loud(line: str) -> bool | None:
    """True if a line has the level warn or above, False if it has a lower one; None: no level."""
    if not (levels := [found for found in (_TAGGED.match(line), _LEVEL.match(line)) if found]):
        return None
    # If both patterns match, the match that ends first gives the level.
    return min(levels, key=re.Match.end)["quiet"] is None


def read_log_line(
    line: str, own: Iterable[CryptoPattern] = (), *, loud: bool | None = None
) -> CryptoFinding | None:
    """The finding of a log line about keys. A contact's words may stand in any line: so quoted text
    says nothing and names no contact (but a field of a message's key does), nor does a line below
    the level warn, and a line without a level counts only if it begins with the error. `loud`: the
    level that the caller knows."""
    line = line[:_LONGEST_LINE]
    if line.lstrip().startswith("{"):
        return _read_json(line, own)
    loud = is_loud(line) if loud is None else loud
    if loud is False:
        return None
    # To the last quote: the words may close the first one.
    said = _QUOTED.sub(" ", _OUTERMOST.sub(" ", line))
    found = read_line(said, own)
    if found is None or not (loud or found.name.startswith(_OWN) or _begins_with_error(said)):
        return None
    return replace(found, peer=peer_in(_QUOTED.sub(r"\g<contact> ", line)))


def read_record(
    record: Mapping[str, object], own: Iterable[CryptoPattern] = ()
) -> CryptoFinding | None:
    """The finding of a logger's record: by its error first, as the message above it is the same
    for all errors. Its other fields may hold a contact's words."""
    level = record.get("level")
    loud = level >= _WARN if isinstance(level, int) else is_loud(f"{level}:")
    if loud is False:
        return None
    error = record.get("err") or record.get("error")
    if isinstance(error, Mapping):
        words = f"{error.get('type', '')}: {error.get('message', '')}"
        if (found := read_log_line(words, own, loud=True)) is not None:
            return found
    return read_log_line(f"{record.get('msg', '')}", own, loud=loud)


def _read_json(line: str, own: Iterable[CryptoPattern]) -> CryptoFinding | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        # Cut off, or no record at all: the level stands in front.
        level = _JSON_LEVEL.search(line)
        found = read_line(line, own) if level and int(level[1]) >= _WARN else None
        if found is not None:
            found = replace(found, peer="")
    else:
        found = read_record(record, own) if isinstance(record, dict) else None
    # A stack is the only string that names an error's contact; others may be a contact's words.
    if found is None:
        return None
    named = map(peer_in, (*_STACK.findall(line), _QUOTED.sub(r"\g<contact> ", line)))
    return replace(found, peer=next(filter(None, named), found.peer))


def _begins_with_error(said: str) -> bool:
    """True if an error stands at the beginning, or behind words that announce one."""
    start = _NOT_SAID.match(said)
    at = start.end() if start else 0
    while not any(pattern.text.match(said, at) for pattern in PATTERNS):
        if (lead := _LEAD.match(said, at)) is None:
            return False
        at = lead.end()
    return True


def peer_in(line: str) -> str:
    """Return the peer that a line names; devices of one peer are one peer."""
    for pattern in _PEERS:
        if match := pattern.search(line[:_LONGEST_LINE]):
            return match[1]
    return ""


@dataclass(slots=True)
class CryptoLogReader:
    """Reads a log line by line: an error waits for the stack under it, which names the peer.

    Under its header libsignal prints one error per session that it tried: one message, one finding,
    told at the block's end. If one of them is a duplicate, so is the message.
    """

    own: tuple[CryptoPattern, ...] = ()
    waiting: CryptoFinding | None = None
    stack: int = 0
    in_block: bool = False
    """True within what libsignal prints about one message."""

    def feed(self, line: str) -> list[CryptoFinding]:
        """Return the findings that are complete with this line."""
        if line.startswith((" ", "\t")) and line.lstrip().startswith("at "):
            return self._feed_stack(line)
        finding, tried = read_log_line(line, self.own), self.waiting
        if finding is not None and self.in_block and "Session error:" in line:
            # A further session that libsignal tried for the same message.
            if tried is None or _TELLS[finding.effect] > _TELLS[tried.effect]:
                known = "" if tried is None else tried.peer
                self.waiting = replace(finding, peer=known or finding.peer)
            return []
        done = self.flush()
        if finding is None:
            return done
        self.in_block = finding.name == "known_header"
        at_once = finding.effect in (Effect.SUMMARY, Effect.BENIGN) or finding.peer
        if self.in_block or at_once or line.lstrip().startswith("{"):
            return [*done, finding]
        self.waiting = finding
        return done

    def _feed_stack(self, line: str) -> list[CryptoFinding]:
        if self.waiting is None or self.waiting.peer:
            return []
        if self.stack >= _LONGEST_STACK:
            return self.flush()
        self.stack += 1
        if not (peer := peer_in(line)):
            return []
        self.waiting, self.stack = replace(self.waiting, peer=peer), 0
        return [] if self.in_block else self.flush()

    def flush(self) -> list[CryptoFinding]:
        """Report the waiting record as it is: the log ended or goes on with something else."""
        done = [self.waiting] if self.waiting is not None else []
        self.waiting, self.stack, self.in_block = None, 0, False
        return done


_TELLS = {Effect.COUNTS: 1, Effect.SUMMARY: 1, Effect.REGENERATES: 2, Effect.BENIGN: 3}
"""Effect → rank: of several errors of one message the highest says what was the matter."""
