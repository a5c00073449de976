"""What the server tells of a message, or keeps of it → the record that is kept here. The contact
chose everything in it: each part is bounded, and the record leaves out what this module does not
understand."""

import hashlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from agent.engines.evolution.chat.content import plain_of
from agent.engines.evolution.chat.words import ACKS
from agent.engines.raw import inside, text, whole

Record = dict[str, Any]

_WORD = 1024
_LONGEST_ID = 200
_MOST_ROWS = 1000
_CALLS = frozenset({"offer", "accept", "reject", "timeout", "terminate"})
_STATES = {"server", "delivered", "read", "played"}
_UPDATE_STATES = {word: state for word, state in ACKS.items() if state in _STATES} | {
    "ERROR": "error"
}
_NOT_SHOWN = "status@broadcast"
_SECONDS = 4e9


def records_of(kind: str, content: Any, *, fresh: bool = True) -> list[Record]:
    """Of the webhook's events about messages, and of rows of the server's store."""
    rows = content if isinstance(content, list) else [content]
    read = _READERS.get(kind)
    if read is None:
        return []
    found = (read(row, fresh=fresh) for row in rows[:_MOST_ROWS] if isinstance(row, Mapping))
    return [record for record in found if record is not None]


def stored_records(row: Any) -> Iterator[Record]:
    """All that a row of the server's store tells: the message, and what became of it."""
    if not isinstance(row, Mapping) or (common := _common(inside(row, "key"), row)) is None:
        return
    updates = inside(row, "MessageUpdate")
    words = [inside(each, "status") for each in updates] if isinstance(updates, list) else []
    if (record := _message(row, fresh=False)) is not None:
        yield record
    if "DELETED" in words:
        yield _about("message_delete", "d", common)
    for word in dict.fromkeys(words):
        if common["from_me"] and (state := _UPDATE_STATES.get(str(word))):
            yield _ack(common, state, "")


def _message(raw: Mapping[str, Any], *, fresh: bool) -> Record | None:
    common = _common(inside(raw, "key"), raw)
    content = raw.get("message")
    if common is None or not isinstance(content, Mapping):
        return None
    reaction = content.get("reactionMessage")
    if isinstance(reaction, Mapping):
        target = text(inside(reaction, "key", "id"), _WORD)
        if not target:
            return None
        more = {"emoji": text(reaction.get("text"), 64)}
        return _about("message_reaction", "r", common, target, common["message_id"], **more)
    plain = plain_of(content, raw.get("contextInfo"))
    if plain is None:
        return None
    by = "me" if common["from_me"] else common["sender"]
    id = record_id("m", common["chat"], by, common["message_id"])
    record = {"kind": "message", "id": id, **common, **plain, "fresh": fresh}
    if not common["from_me"] and (name := text(raw.get("pushName"), _WORD)):
        record["name"] = name
    if "media" in plain:
        key = raw["key"]
        # By these the server finds it again; its own name of the chat may be another one.
        where = {"id": common["message_id"], "chat": text(key.get("remoteJid"), _WORD)}
        record["_media"] = {**where, "from_me": common["from_me"]}
    return record


def _edit(raw: Mapping[str, Any], *, fresh: bool) -> Record | None:
    """The server tells the key of the author's side: not in which chat, nor who wrote."""
    if raw.get("type") not in ("MESSAGE_EDIT", 14):
        return None
    target = text(inside(raw, "key", "id"), _WORD)
    plain = plain_of(inside(raw, "editedMessage") or {}, None)
    if not target or plain is None:
        return None
    stamp = str(raw.get("timestampMs") or "")[:20]
    at = float(stamp) / 1000 if stamp.isdigit() else 0.0
    common = {
        "at": at if 0 < at < _SECONDS else time.time(),
        "chat": "",
        "from_me": False,
        "sender": "",
        "alias": "",
        "message_id": target,
    }
    id = record_id("e", "", "", target, stamp)
    return {"kind": "message_edit", "id": id, **common, "text": plain.get("text", "")}


def _delete(raw: Mapping[str, Any], *, fresh: bool) -> Record | None:
    key = raw["key"] if isinstance(raw.get("key"), Mapping) else raw
    common = _common(key, {})
    return None if common is None else _about("message_delete", "d", common)


def _update(raw: Mapping[str, Any], *, fresh: bool) -> Record | None:
    """1.8 and 2.x name the message's id differently. Only of messages that the session sent."""
    key = {**raw, "id": raw.get("keyId") or raw.get("id")}
    common, state = _common(key, {}), _UPDATE_STATES.get(str(raw.get("status")))
    if common is None or not state or not common["from_me"]:
        return None
    return _ack(common, state, jid(raw.get("participant")))


def _call(raw: Mapping[str, Any], *, fresh: bool) -> Record | None:
    id, state, chat = text(raw.get("id"), _WORD), raw.get("status"), jid(raw.get("from"))
    if not id or state not in _CALLS or not chat:
        return None
    record: Record = {"kind": "call", "id": record_id("c", id, str(state))}
    record |= {"at": time.time(), "chat": jid(raw.get("chatId")) or chat, "from_me": False}
    record |= {"sender": chat, "alias": "", "message_id": "", "call_id": id, "state": state}
    if state == "offer":
        record["video"] = raw.get("isVideo") is True
    return record


_READERS = {
    "MESSAGES_UPSERT": _message,
    "SEND_MESSAGE": _message,
    "MESSAGES_EDITED": _edit,
    "MESSAGES_DELETE": _delete,
    "MESSAGES_UPDATE": _update,
    "CALL": _call,
}


def _common(key: Any, raw: Mapping[str, Any]) -> Record | None:
    """The fields of every record; None where it is no message of a chat. A person is shown by the
    phone's number where the server tells it, and by WhatsApp's other name (…@lid) else."""
    chat, id = jid(inside(key, "remoteJid")), text(inside(key, "id"), _WORD)
    if not chat or not id or chat == _NOT_SHOWN:
        return None
    from_me = inside(key, "fromMe") is True
    number = jid(inside(key, "remoteJidAlt")) or jid(inside(key, "senderPn"))
    member, its_number = jid(inside(key, "participant")), jid(inside(key, "participantAlt"))
    its_number = its_number or jid(inside(key, "participantPn"))
    sender, alias = (member, its_number) if member else (chat, number)
    if from_me:
        sender = alias = ""
    if sender.endswith("@lid") and alias.endswith("@s.whatsapp.net"):
        sender, alias = alias, sender
    if chat.endswith("@lid") and number.endswith("@s.whatsapp.net"):
        chat = number
    return {
        "at": _seconds(raw.get("messageTimestamp")),
        "chat": chat,
        "from_me": from_me,
        "sender": sender,
        "alias": alias,
        "message_id": id,
    }


def _about(
    kind: str, letter: str, common: Record, target: str = "", *last: str, **own: Any
) -> Record:
    target = target or common["message_id"]
    by = "me" if common["from_me"] else common["sender"]
    id = record_id(letter, common["chat"], by, target, *last)
    return {"kind": kind, "id": id, **common, "message_id": target, **own}


def _ack(common: Record, state: str, participant: str) -> Record:
    id = record_id("a", common["message_id"], participant or common["chat"], state)
    own = {"state": state, "participant": participant}
    return {"kind": "message_ack", "id": id, **common, "at": time.time(), **own}


def record_id(*parts: str) -> str:
    """The record's id; a long one ends in its hash, so that no contact makes it longer."""
    id = ":".join(parts)
    if len(id) <= _LONGEST_ID:
        return id
    return f"{parts[0]}:{hashlib.sha256(id.encode('utf-8', 'replace')).hexdigest()}"


def jid(raw: Any) -> str:
    """Without its device: 4912@s.whatsapp.net for 4912:3@s.whatsapp.net."""
    user, at, server = text(raw, _WORD).rpartition("@")
    return f"{user.partition(':')[0]}@{server}" if at and user else ""


def _seconds(raw: Any) -> float:
    value = raw.get("low") if isinstance(raw, Mapping) else raw
    value = int(value) if isinstance(value, str) and value.isdigit() else value
    found = whole(value)
    return float(found) if found is not None and 0 < found < _SECONDS else time.time()
