"""What the sandbox's contacts do, as records of messages: each kind that a real engine has. The API
has checked the fields' types."""

import os
import time
from collections.abc import Mapping
from typing import Any

from agent.engines.receiver import digits_of, is_phone
from agent.errors import InvalidRequest

Record = dict[str, Any]

TYPES = (
    *("text", "image", "video", "audio", "document", "sticker", "location", "contact", "poll"),
    "other",
)
ABOUT_MESSAGE = {
    "message_reaction": "r",
    "message_edit": "e",
    "message_delete": "d",
    "message_vote": "v",
}
_OF_TYPE = {"reaction": "message_reaction", "edit": "message_edit", "delete": "message_delete"}
ME = "me"
"""In the place of a contact: this account."""
KINDS = ("message", *ABOUT_MESSAGE, "message_ack", "call")
MORE = (
    *("name", "quote", "mentions", "media", "location", "contacts", "poll", "emoji", "options"),
    *("state", "video", "participant", "alias", "at"),
)
"""Fields of a record that `say` takes as they are, beside its own."""
_MIMETYPES = {
    "image": "image/jpeg",
    "video": "video/mp4",
    "audio": "audio/ogg; codecs=opus",
    "document": "application/pdf",
    "sticker": "image/webp",
}


def jid_of(contact: object, field: str = "contact") -> str:
    """A phone number, or a chat's id as it is."""
    text = contact.strip() if isinstance(contact, str) else ""
    if is_phone(text):
        return f"{digits_of(text)}@s.whatsapp.net"
    user, at, server = text.replace("@c.us", "@s.whatsapp.net").partition("@")
    if not (user and at and server) or len(text) > 64 or any(c.isspace() for c in text):
        raise InvalidRequest(
            f"cannot say it: {field} is neither a phone number nor a chat's id", field=field
        )
    return f"{user}@{server}"


def chat_of(to: str) -> str:
    """Where a message of the session goes: the sandbox has a contact for each text."""
    text = to.strip().replace("@c.us", "@s.whatsapp.net")[:64]
    if is_phone(text):
        text = digits_of(text)
    return text if "@" in text else f"{text}@s.whatsapp.net"


def new_id() -> str:
    return "3EB0" + os.urandom(9).hex().upper()


def record_of(said: Mapping[str, Any]) -> Record:
    """What the command `say` asks for; InvalidRequest names the field."""
    kind = said.get("kind", "message")
    sender = jid_of(said.get("contact"))
    own = said.get("from_me") is True
    chat = jid_of(said["group"], "group") if said.get("group") else sender
    about = said.get("of", "")
    if (kind in ABOUT_MESSAGE or kind == "message_ack") and not about:
        raise InvalidRequest(f"cannot say it: a {kind} needs the id of a message", field="of")
    id = about or said.get("message_id") or new_id()
    record = _record(kind, chat, id, "" if own else sender)
    record["from_me"] = own or kind == "message_ack"
    more = said.get("fields", {})
    if unknown := sorted(set(more) - set(MORE)):
        known = ", ".join(MORE)
        raise InvalidRequest(
            f"cannot say it: unknown field {unknown[0]!r:.40}; known: {known}", field="fields"
        )
    record |= _content(kind, said, more) | more
    record["id"] = _id_of(record)
    return record


def own_message(chat: str, id: str, message: Mapping[str, Any]) -> Record:
    """What the session sent itself, as its account's other devices see it."""
    kind = _OF_TYPE.get(message.get("type", ""), "message")
    record = _record(kind, chat, id)
    if kind != "message":
        record["message_id"] = message.get("message_id", "")
        record |= {name: message[name] for name in ("emoji", "text") if name in message}
    else:
        word = message.get("type", "text")
        text = message.get("text") or message.get("caption") or ""
        record |= {"type": word if word in TYPES else "other", "text": text, "fresh": True}
        record |= _answers(message)
        if word == "media":
            main = str(message.get("mimetype", "")).partition("/")[0]
            record["type"] = main if main in ("image", "video", "audio") else "document"
            record["media"] = {"mimetype": message.get("mimetype", "")}
    record["id"] = _id_of(record)
    return record


def _answers(message: Mapping[str, Any]) -> Record:
    """What it replies to, and whom it names."""
    found: Record = {}
    if message.get("quote"):
        sender = message.get("quote_from", "")
        found["quote"] = {
            "message_id": message["quote"],
            "sender": "" if sender == ME else sender,
            "text": message.get("quote_text", ""),
        }
    if message.get("mentions"):
        found["mentions"] = list(message["mentions"])
    return found


def ack(chat: str, id: str, state: str) -> Record:
    own = {"id": f"a:{id}:{chat}:{state}"[:200], "state": state}
    return _record("message_ack", chat, id) | own


def _record(kind: str, chat: str, id: str, sender: str = "") -> Record:
    who = {"from_me": not sender, "sender": sender, "alias": "", "message_id": id}
    return {"v": 1, "kind": kind, "at": round(time.time(), 3), "chat": chat, **who}


def _content(kind: str, said: Mapping[str, Any], more: Mapping[str, Any]) -> Record:
    text = said.get("text", "")
    match kind:
        case "message":
            word = said.get("type", "text")
            return {"type": word, "text": text, "fresh": True, **_sample(word, text, more)}
        case "message_reaction":
            return {"emoji": text}
        case "message_edit":
            return {"text": text}
        case "message_vote":
            return {"options": [text] if text else []}
        case "message_ack":
            return {"state": text or "delivered"}
        case "call":
            return {"call_id": said.get("of") or new_id(), "state": text or "offer", "video": False}
    return {}


def _sample(word: str, text: str, more: Mapping[str, Any]) -> Record:
    """What a message of this type must have, where the caller gave nothing."""
    if word in _MIMETYPES:
        return {"media": {"mimetype": _MIMETYPES[word], "size": 1024}}
    if word == "location":
        return {"location": {"latitude": -23.5505, "longitude": -46.6333, "name": text}}
    if word == "contact":
        vcard = "BEGIN:VCARD\nVERSION:3.0\nFN:Ann\nTEL;type=CELL:+5511999990000\nEND:VCARD"
        return {"contacts": [{"name": "Ann", "vcard": vcard}]}
    if word == "poll":
        return {"poll": {"question": text, "options": ["yes", "no"], "several": False}}
    return {}


def _id_of(record: Mapping[str, Any]) -> str:
    """The same for the same thing, whenever it comes."""
    kind, who = record["kind"], record["sender"] or "me"
    message = f"{record['chat']}:{who}:{record['message_id']}"
    if kind == "message":
        return f"m:{message}"[:200]
    if kind == "call":
        return f"c:{record['call_id']}:{record['state']}"[:200]
    if kind == "message_ack":
        return f"a:{record['message_id']}:{record['sender']}:{record['state']}"[:200]
    return f"{ABOUT_MESSAGE[kind]}:{message}:{record['at']}"[:200]
