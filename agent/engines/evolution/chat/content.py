"""What stands in a message, as the server's JSON has it: the protocol's own form, with the numbers
and the bytes of JavaScript's libraries in it."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from agent.engines.raw import inside, text, whole

_TEXT = 65_536
_WORD = 1024
_CARD = 8192
_QUOTE = 4096
_MOST = 256
_MEDIA = {
    "imageMessage": "image",
    "videoMessage": "video",
    "ptvMessage": "video",
    "audioMessage": "audio",
    "documentMessage": "document",
    "stickerMessage": "sticker",
}
_SILENT = frozenset(
    {
        "protocolMessage",
        "senderKeyDistributionMessage",
        "fastRatchetKeySenderKeyDistributionMessage",
        "messageContextInfo",
        "deviceSentMessage",
        "pollUpdateMessage",
        "call",
    }
)
"""Content that WhatsApp's apps do not show."""
_WRAPPERS = (
    *("ephemeralMessage", "viewOnceMessage", "viewOnceMessageV2", "viewOnceMessageV2Extension"),
    *("documentWithCaptionMessage", "editedMessage"),
)
_DEEPEST = 5
_ITS_OWN = frozenset({"mediaUrl", "base64", "speechToText"})
"""What the server puts beside it."""


def plain_of(message: Mapping[str, Any], context: Any) -> dict[str, Any] | None:
    """Its part of a record; None for what a phone does not show. `context`: what the server tells
    beside the message, which 2.x takes out of it."""
    name, part = _content(message)
    if not name:
        return None
    context = context if isinstance(context, Mapping) else inside(part, "contextInfo")
    plain = _of_type(name, part)
    quote, mentions = _quote(context), inside(context, "mentionedJid")
    if quote:
        plain["quote"] = quote
    if isinstance(mentions, list) and (named := [text(it, _WORD) for it in mentions[:_MOST] if it]):
        plain["mentions"] = named
    return plain


def _content(message: Any) -> tuple[str, Any]:
    for _ in range(_DEEPEST):
        if not isinstance(message, Mapping):
            return "", None
        inner = next((name for name in _WRAPPERS if isinstance(message.get(name), Mapping)), "")
        if not inner:
            break
        message = message[inner].get("message")
    if not isinstance(message, Mapping):
        return "", None
    shown = ((name, part) for name, part in message.items() if part and name not in _ITS_OWN)
    return next(((name, part) for name, part in shown if name not in _SILENT), ("", None))


def _of_type(name: str, part: Any) -> dict[str, Any]:
    if name == "conversation":
        return {"type": "text", "text": text(part, _TEXT)}
    if name in _MEDIA:
        return {"type": _MEDIA[name], "text": text(inside(part, "caption"), _TEXT)} | _media(part)
    match name:
        case "extendedTextMessage":
            return {"type": "text", "text": text(inside(part, "text"), _TEXT)}
        case "buttonsResponseMessage" | "templateButtonReplyMessage":
            return {"type": "text", "text": text(inside(part, "selectedDisplayText"), _TEXT)}
        case "listResponseMessage":
            return {"type": "text", "text": text(inside(part, "title"), _TEXT)}
        case "locationMessage" | "liveLocationMessage":
            return {"type": "location", "location": _location(part)}
        case "contactMessage":
            return {"type": "contact", "contacts": [_card(part)]}
        case "contactsArrayMessage":
            cards = inside(part, "contacts")
            return {"type": "contact", "contacts": [_card(it) for it in _list(cards)]}
    if name.startswith("pollCreationMessage"):
        return {"type": "poll", "poll": _poll(part)}
    return {"type": "other"}


def _media(part: Any) -> dict[str, Any]:
    found = {
        "mimetype": text(inside(part, "mimetype"), _WORD),
        "size": number_of(inside(part, "fileLength")),
        "sha256": hex_of(inside(part, "fileSha256")),
        "filename": text(inside(part, "fileName"), _WORD),
        "seconds": number_of(inside(part, "seconds")),
        "width": number_of(inside(part, "width")),
        "height": number_of(inside(part, "height")),
    }
    return {"media": {name: value for name, value in found.items() if value}}


def _location(part: Any) -> dict[str, Any]:
    places = {"latitude": "degreesLatitude", "longitude": "degreesLongitude"}
    found: dict[str, Any] = {
        name: value
        for name, theirs in places.items()
        if type(value := inside(part, theirs)) in {int, float}
    }
    words = {name: text(inside(part, name), _WORD) for name in ("name", "address")}
    return found | {name: word for name, word in words.items() if word}


def _card(raw: Any) -> dict[str, str]:
    return {
        "name": text(inside(raw, "displayName"), _WORD),
        "vcard": text(inside(raw, "vcard"), _CARD),
    }


def _poll(part: Any) -> dict[str, Any]:
    options = [text(inside(it, "optionName"), _WORD) for it in _list(inside(part, "options"))]
    several = whole(inside(part, "selectableOptionsCount")) != 1
    return {"question": text(inside(part, "name"), _WORD), "options": options, "several": several}


def _quote(context: Any) -> dict[str, str]:
    id = text(inside(context, "stanzaId"), _WORD)
    if not id:
        return {}
    name, part = _content(inside(context, "quotedMessage"))
    found = {"message_id": id, "sender": text(inside(context, "participant"), _WORD)}
    words = _of_type(name, part).get("text", "")[:_QUOTE] if name else ""
    return {**found, "text": words} if words else found


def _list(raw: Any) -> list[Any]:
    return raw[:_MOST] if isinstance(raw, list) else []


def number_of(raw: Any) -> int | None:
    """A number, also as `long` writes it (`low`, `high`) or as a text."""
    if isinstance(raw, Mapping):
        low, high = whole(raw.get("low")), whole(raw.get("high"))
        return None if low is None or high is None else (high << 32) + (low & 0xFFFFFFFF)
    if isinstance(raw, str) and raw.isdigit() and len(raw) < 16:
        return int(raw)
    return whole(raw)


def hex_of(raw: Any) -> str:
    """Of bytes: a text of base64, or an object with a number for each; "" for what is neither."""
    if isinstance(raw, Mapping) and raw.get("type") == "Buffer":
        raw = raw.get("data")
    if isinstance(raw, str) and len(raw) <= _WORD:
        try:
            return base64.b64decode(raw, validate=True).hex()
        except (binascii.Error, ValueError):
            return ""
    values = list(raw.values()) if isinstance(raw, Mapping) else raw
    if isinstance(values, list) and len(values) <= 64 and all(type(it) is int for it in values):
        return bytes(it & 0xFF for it in values).hex()
    return ""
