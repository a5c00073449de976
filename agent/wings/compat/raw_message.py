"""A record of a session as the message that Evolution shows. Pure. What no record has (the keys of
a media file, which stay with the session) is left out."""

from collections.abc import Callable, Mapping
from typing import Any

from agent.core.model import Instance
from agent.wings.compat.names import instance_uuid, is_group, jid_of, source_of

OWN_NAME = "Você"
"""How Evolution names who has no other name: the account itself."""
PENDING, SERVER_ACK, DELIVERY_ACK = "PENDING", "SERVER_ACK", "DELIVERY_ACK"
Record = Mapping[str, Any]
KEY = "key"
"""In the place of a record: the key that a client named the message by."""


def raw_message(instance: Instance, record: Record, *, sent_here: bool = False) -> dict[str, Any]:
    """Of a message or a reaction. `sent_here`: by a request to this agent, not on the phone."""
    kind, content = _content(record, sent_here=sent_here)
    key, own = key_of(record), record.get("from_me") is True
    key["id"] = own_id(record)
    context = _context(record, always=sent_here and kind != "reactionMessage")
    shown: dict[str, Any] = {
        "key": key,
        "pushName": record.get("name") or (OWN_NAME if own else _number_of(record)),
        "status": (PENDING if sent_here else SERVER_ACK) if own else DELIVERY_ACK,
        "message": content,
        "messageType": kind,
        "messageTimestamp": int(record.get("at", 0)),
        "instanceId": instance_uuid(instance),
        "source": source_of(key["id"]),
    }
    if context or kind not in ("conversation", "reactionMessage"):
        shown["contextInfo"] = context or None
    return shown


def own_id(record: Record) -> str:
    """WhatsApp's id of the message that brought it; `message_id` is the one that it is about."""
    if record.get("kind") in ("message_reaction", "message_edit"):
        return str(record["id"]).rpartition(":")[2]
    return str(record.get("message_id", ""))


def key_of(record: Record) -> dict[str, Any]:
    """Of the message that the record is about."""
    chat, own = jid_of(record.get("chat", "")), record.get("from_me") is True
    key: dict[str, Any] = {"remoteJid": chat, "fromMe": own, "id": record.get("message_id", "")}
    if own:
        return key
    sender, alias = jid_of(record.get("sender", "")), jid_of(record.get("alias", ""))
    group = is_group(chat)
    if alias:
        key["participantAlt" if group else "remoteJidAlt"] = alias
    key["participant"] = sender if group else ""
    key["addressingMode"] = "lid" if (sender if group else chat).endswith("@lid") else "pn"
    return key


def _number_of(record: Record) -> str:
    for name in ("alias", "sender", "chat"):
        jid = jid_of(record.get(name, ""))
        if jid.endswith("@s.whatsapp.net"):
            return jid.partition("@")[0]
    return jid_of(record.get("sender", "")).partition("@")[0]


def _context(record: Record, *, always: bool) -> dict[str, Any]:
    quote, mentions = record.get("quote"), record.get("mentions")
    if not quote and not mentions and not always:
        return {}
    context: dict[str, Any] = {
        "mentionedJid": [jid_of(each) for each in mentions or ()],
        "groupMentions": [],
    }
    if quote:
        context["stanzaId"] = quote.get("message_id", "")
        context["participant"] = jid_of(quote.get("sender", ""))
        context["quotedMessage"] = {"conversation": quote.get("text", "")}
    return context


def _content(record: Record, *, sent_here: bool) -> tuple[str, dict[str, Any]]:
    """The name of what is in it, and that."""
    if record.get("kind") == "message_reaction":
        return "reactionMessage", {"reactionMessage": _reaction(record, sent_here=sent_here)}
    type = record.get("type", "other")
    if type == "text":
        return "conversation", {"conversation": record.get("text", "")}
    if type == "contact" and len(cards := _cards(record)) != 1:
        names = ", ".join(card["displayName"] for card in cards)
        return "contactsArrayMessage", {
            "contactsArrayMessage": {"displayName": names, "contacts": cards}
        }
    if type not in _PARTS:
        return "unknown", {}
    name, part = _PARTS[type]
    return name, {name: part(record)}


def _reaction(record: Record, *, sent_here: bool) -> dict[str, Any]:
    at, chat = int(float(record.get("at", 0)) * 1000), jid_of(record.get("chat", ""))
    target = {"remoteJid": chat, "id": record.get("message_id", ""), "participant": ""}
    return {
        "key": record.get(KEY, target),
        "text": record.get("emoji", ""),
        "senderTimestampMs": at if sent_here else long_of(at, unsigned=False),
    }


def long_of(number: int, *, unsigned: bool = True) -> dict[str, Any]:
    """A whole number of 64 bits as JavaScript's library shows one."""
    return {"low": _signed(number & 0xFFFFFFFF), "high": number >> 32, "unsigned": unsigned}


def _signed(word: int) -> int:
    return word - (1 << 32) if word >= 1 << 31 else word


def _media(record: Record) -> dict[str, Any]:
    media = record.get("media") or {}
    named = {
        "mimetype": media.get("mimetype"),
        "caption": record.get("text"),
        "fileName": media.get("filename"),
        "seconds": media.get("seconds"),
        "height": media.get("height"),
        "width": media.get("width"),
    }
    part = {name: value for name, value in named.items() if value not in (None, "")}
    if (size := media.get("size")) is not None:
        part["fileLength"] = long_of(int(size))
    if hash := media.get("sha256"):
        part["fileSha256"] = bytes_of(hash)
    return part


def bytes_of(hex: str) -> dict[str, int]:
    """Bytes as JavaScript shows them in JSON."""
    try:
        return {str(at): byte for at, byte in enumerate(bytes.fromhex(hex))}
    except ValueError:
        return {}


def _location(record: Record) -> dict[str, Any]:
    place = record.get("location") or {}
    named = {
        "degreesLatitude": place.get("latitude"),
        "degreesLongitude": place.get("longitude"),
        "name": place.get("name"),
        "address": place.get("address"),
    }
    return {name: value for name, value in named.items() if value is not None}


def _cards(record: Record) -> list[dict[str, Any]]:
    return [
        {"displayName": each.get("name", ""), "vcard": each.get("vcard", "")}
        for each in record.get("contacts") or ()
    ]


def _poll(record: Record) -> dict[str, Any]:
    poll = record.get("poll") or {}
    return {
        "name": poll.get("question", ""),
        "options": [{"optionName": each} for each in poll.get("options") or ()],
        "selectableOptionsCount": 0 if poll.get("several") else 1,
    }


def _card(record: Record) -> dict[str, Any]:
    return _cards(record)[0]


_PARTS: Mapping[str, tuple[str, Callable[[Record], dict[str, Any]]]] = {
    "image": ("imageMessage", _media),
    "video": ("videoMessage", _media),
    "audio": ("audioMessage", _media),
    "document": ("documentMessage", _media),
    "sticker": ("stickerMessage", _media),
    "location": ("locationMessage", _location),
    "contact": ("contactMessage", _card),
    "poll": ("pollCreationMessageV3", _poll),
}
