"""A record: something that arrived in a session, or left it, as each engine tells it: one JSON
object, in which a key that an engine cannot tell is left out. Pure; each worker has it in memory.

An engine makes a record without `cursor` and `kept`, which `incoming` adds.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
VERSION = 1
LONGEST = 256 * 1024
"""Bytes of a record as JSON in UTF-8."""
LONGEST_TEXT = 65_536
"""Characters of what a person wrote, which is kept whole up to here."""
LONGEST_ID = 200
LONGEST_WORD = 1024
"""Characters of a jid, a name, a file's name."""
MOST_PARTS = 1024
"""Entries of a list."""

MESSAGE, GAP = "message", "message_gap"
TYPES = "text, image, video, audio, document, sticker, location, contact, poll, other"
PRIVATE = "_"
"""A key that begins so is never shown: what a later download needs."""

_TEXT = {"type": "string", "maxLength": LONGEST_TEXT}
_WORD = {"type": "string", "maxLength": LONGEST_WORD}
_NUMBER, _TRUTH, _OBJECT = {"type": "number"}, {"type": "boolean"}, {"type": "object"}
_WORDS = {"type": "array", "items": {"type": "string"}}
_Fields = Mapping[str, tuple[Mapping[str, Any], str]]
COMMON: _Fields = {
    "at": (_NUMBER, "WhatsApp's time of it, in Unix seconds"),
    "chat": (_WORD, "jid of the chat"),
    "from_me": (_TRUTH, "whether this account wrote or did it"),
    "sender": (_WORD, 'jid of who wrote or did it; "" = unknown'),
    "alias": (_WORD, 'another jid of the sender, such as a lid; "" = none'),
    "message_id": (_WORD, "WhatsApp's id of the message that it is about"),
}
"""The fields of every record beside v, id, kind, cursor and kept, with their meaning."""
OWN: Mapping[str, _Fields] = {
    MESSAGE: {
        "type": (_WORD, f"one of {TYPES}"),
        "text": (_TEXT, "its text, or the caption of what it brings"),
        "name": (_WORD, "the name that the sender gave itself"),
        "quote": (_OBJECT, "the message it answers: message_id, sender, text"),
        "mentions": (_WORDS, "jids that it names"),
        "media": (_OBJECT, "mimetype, size, sha256, filename, seconds, width, height"),
        "location": (_OBJECT, "latitude, longitude, name, address"),
        "contacts": ({"type": "array", "items": _OBJECT}, "each with name and vcard"),
        "poll": (_OBJECT, "question, options, several"),
        "fresh": (_TRUTH, "false = it came from a history, or by a comparison after a pause"),
    },
    "message_reaction": {"emoji": (_WORD, '"" = it was taken back')},
    "message_edit": {"text": (_TEXT, "the text from now on")},
    "message_delete": {},
    "message_vote": {"options": (_WORDS, "names of the options, or their hashes in hex")},
    "message_ack": {
        "state": (_WORD, "one of server, delivered, read, played, error"),
        "participant": (_WORD, 'who of a group; "" = the chat'),
    },
    "call": {
        "call_id": (_WORD, "WhatsApp's id of the call"),
        "state": (_WORD, "offer, accept, reject, timeout, terminate, …"),
        "video": (_TRUTH, "whether it is a video call"),
    },
    GAP: {
        "missing": (_NUMBER, "how many records are gone for good, at most; not there = unknown"),
        "first": (_NUMBER, "the cursor of the first of them"),
        "last": (_NUMBER, "and of the last"),
        "since": (_NUMBER, "since when, in Unix seconds"),
    },
}
"""Each kind with the fields that only it has. A gap is made for a reader and never kept."""
_DEVICE = re.compile(r":[0-9]{1,5}@")
"""In a jid of one of a person's devices, 49…:12@s.whatsapp.net: records name the person."""
_BY_KIND = {it: [(n, w) for n, (w, _) in {**COMMON, **OWN[it]}.items()] for it in OWN if it != GAP}


def clean(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The record as it is kept. A field of a wrong type is left out, what is too long is cut: who
    wrote to the session chose what is in it, and one message may not hold up all others. ValueError
    for what no engine may make: no id, or no known kind."""
    id, kind = raw.get("id"), raw.get("kind")
    if not isinstance(id, str) or not 0 < len(id) <= LONGEST_ID:
        raise ValueError(f"a record's id is not 1 to {LONGEST_ID} characters long")
    if kind not in _BY_KIND:
        raise ValueError(f"no record is of kind {kind!r:.40}")
    found: dict[str, Any] = {"v": VERSION, "id": id, "kind": kind}
    for name, wanted in _BY_KIND[kind]:
        if name in raw and (value := _take(raw[name], wanted)) is not None:
            found[name] = value
    for name in ("chat", "sender", "alias", "participant"):
        if ":" in found.get(name, ""):
            found[name] = _DEVICE.sub("@", found[name])
    for name, value in raw.items():
        if name.startswith(PRIVATE) and isinstance(value, Mapping):
            found[name] = _plain(value)
    return found


def encode(record: Mapping[str, Any]) -> bytes:
    """Return a record as one line without its end, at most LONGEST; fields beyond are left out."""
    line = _dump(record)
    if len(line) <= LONGEST:
        return line
    short = {**record, "cut": True}
    for name in ("_media", "quote", "contacts", "mentions", "poll", "location", "media", "options"):
        if short.pop(name, None) is not None and len(line := _dump(short)) <= LONGEST:
            return line
    short["text"] = short.get("text", "")[: LONGEST_TEXT // 2]
    return _dump(short)


def gap(first: int, last: int, since: float, missing: int | None) -> dict[str, Any]:
    """Return a record in the place of records that are gone; `missing`: None = unknown."""
    many = {} if missing is None else {"missing": missing}
    own = {"first": first, "last": last, "since": since, **many}
    return {"v": VERSION, "id": f"g:{first}:{last}", "kind": GAP, "cursor": last, **own}


def read(body: Any) -> dict[str, Any] | None:
    """Return a kept record; None: the disk changed its bytes, which SQLite does not notice."""
    try:
        whole = json.loads(body)
    except (ValueError, TypeError, RecursionError):
        return None
    return whole if isinstance(whole, dict) else None


def show(cursor: int, kept: float, body: Any) -> dict[str, Any]:
    """Return a kept record as a reader gets it; a gap in the place of a damaged one."""
    if (whole := read(body)) is None:
        return gap(cursor, cursor, kept, 1)
    shown = {name: value for name, value in whole.items() if not name.startswith(PRIVATE)}
    return {"cursor": cursor, **shown, "kept": kept}


def _take(value: Any, wanted: Mapping[str, Any]) -> Any:
    """Return the value, cut to its bounds; None if its type is not the wanted one."""
    if wanted is _TEXT or wanted is _WORD:
        return value[: wanted["maxLength"]] if isinstance(value, str) else None
    if wanted is _NUMBER:
        return value if type(value) in {int, float} and abs(value) < 1e15 else None
    if wanted is _TRUTH:
        return value if isinstance(value, bool) else None
    if wanted is _OBJECT:
        return _plain(value) if isinstance(value, Mapping) else None
    if not isinstance(value, list):
        return None
    if wanted is _WORDS:
        return [each[:LONGEST_WORD] for each in value[:MOST_PARTS] if isinstance(each, str)]
    return [_plain(each) for each in value[:MOST_PARTS] if isinstance(each, Mapping)]


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the texts, numbers, truths and lists of texts in `value`."""
    found: dict[str, Any] = {}
    for name, each in list(value.items())[:MOST_PARTS]:
        if isinstance(each, list):
            found[name] = _take(each, _WORDS)
        elif isinstance(each, bool):
            found[name] = each
        elif (kept := _take(each, _TEXT if isinstance(each, str) else _NUMBER)) is not None:
            found[name] = kept
    return found


def _dump(record: Mapping[str, Any]) -> bytes:
    # WhatsApp's texts come from JavaScript, where half a character is possible.
    return _JSON.encode(record).encode("utf-8", "replace")
