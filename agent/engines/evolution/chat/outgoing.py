"""A message to send → the request that each of the two dialects wants. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.engines.evolution.chat.files import kind_of, name_of
from agent.engines.phones import receiver_of
from agent.errors import EngineError, InvalidRequest

ME = "me"
"""In the place of a jid: this session's account."""
PRESENCES = {"typing": "composing", "recording": "recording", "paused": "paused"}
_LONGEST = 65_536
_VOICE = "audio/ogg"
"""What phones record: it goes out as a voice message."""


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    """Before the session's name."""
    body: Mapping[str, Any]


def request_of(
    message: Mapping[str, Any], *, old: bool, about: Mapping[str, Any] | None = None
) -> Request:
    """`about`: the key of the message that this one is about, and its `message`, where one is."""
    number = receiver_of(message.get("to")).replace("@c.us", "@s.whatsapp.net")
    kind = message.get("type", "text")
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        kinds = ", ".join(_READERS)
        raise InvalidRequest(
            f"cannot send {kind!r:.40}: through an Evolution server only these are sent: {kinds}",
            field="type",
        )
    return read(number, message, about or {}, old=old)


def chat_of(message: Mapping[str, Any]) -> str:
    return chat_jid(receiver_of(message.get("to")))


def chat_jid(number: str) -> str:
    number = number.replace("@c.us", "@s.whatsapp.net")
    return number if "@" in number else f"{number}@s.whatsapp.net"


def key_of(message: Mapping[str, Any], name: str, writer: str) -> dict[str, Any]:
    """The protocol's key of the message that `name` names and `writer` wrote, as well as it can be
    made here."""
    chat, sender = chat_of(message), str(message.get(writer) or "")
    own = sender == ME or message.get("type") == "edit"
    key: dict[str, Any] = {"remoteJid": chat, "fromMe": own, "id": str(message.get(name))}
    if chat.endswith("@g.us") and not own and sender:
        key["participant"] = sender
    return key


def read_request(chat: str, ids: list[str], *, old: bool) -> Request:
    """Its keys have no author: the server takes none."""
    keys = [{"remoteJid": chat, "fromMe": False, "id": id} for id in ids]
    body = {"read_messages" if old else "readMessages": keys}
    return Request("PUT" if old else "POST", "/chat/markMessageAsRead", body)


def presence_request(number: str, state: str, seconds: float, *, old: bool) -> Request:
    """The server shows it for so long, and only then answers."""
    shown = {"presence": PRESENCES[state], "delay": round(seconds * 1000)}
    body = {"number": number, "options": shown} if old else {"number": number, **shown}
    return Request("POST", "/chat/sendPresence", body)


def _text(
    number: str, message: Mapping[str, Any], about: Mapping[str, Any], *, old: bool
) -> Request:
    text = message.get("text")
    if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST:
        raise InvalidRequest("cannot send: text is missing or too long", field="text")
    more = {"linkPreview": False, **_answers(message, about, old=old)}
    return _sent("sendText", number, "textMessage", {"text": text}, more, old=old)


def _answers(message: Mapping[str, Any], about: Mapping[str, Any], *, old: bool) -> dict[str, Any]:
    """What it replies to, and whom it names."""
    more: dict[str, Any] = {}
    if "quote" in message:
        more["quoted"] = {"key": about["key"], "message": about["message"]}
    if mentioned := [str(jid).partition("@")[0] for jid in message.get("mentions", ())]:
        more |= {"mentions": {"mentioned": mentioned}} if old else {"mentioned": mentioned}
    return more


def _media(
    number: str, message: Mapping[str, Any], about: Mapping[str, Any], *, old: bool
) -> Request:
    mimetype, file = message.get("mimetype"), message.get("content")
    if not isinstance(mimetype, str) or not mimetype:
        raise InvalidRequest("cannot send the file: its mimetype is missing", field="mimetype")
    if file is None:
        file = str(message.get("url") or "")
        if not file.startswith("https://"):
            raise InvalidRequest("cannot send the file: its url is not https", field="url")
    more = _answers(message, about, old=old)
    if mimetype.startswith(_VOICE) and not more and not message.get("caption"):
        more = {"encoding": False}  # it is in the form that the server would make of it
        return _sent("sendWhatsAppAudio", number, "audioMessage", {"audio": file}, more, old=old)
    kind = kind_of(mimetype)
    content = {"mediatype": kind, "mimetype": mimetype, "media": file}
    if kind == "document":
        content["fileName"] = name_of(message)
    if message.get("caption"):
        content["caption"] = message["caption"]
    return _sent("sendMedia", number, "mediaMessage", content, more, old=old)


def _location(
    number: str, message: Mapping[str, Any], _about: Mapping[str, Any], *, old: bool
) -> Request:
    place = {name: message.get(name) for name in ("latitude", "longitude")}
    words = {name: str(message.get(name) or "") for name in ("name", "address")}
    if old:  # it takes no empty one; 2.x takes no other
        words = {name: word for name, word in words.items() if word}
    return _sent("sendLocation", number, "locationMessage", {**place, **words}, {}, old=old)


def _contact(
    number: str, message: Mapping[str, Any], _about: Mapping[str, Any], *, old: bool
) -> Request:
    phone = str(message.get("phone", ""))
    digits = "".join(filter(str.isdigit, phone))
    cards = [{"fullName": message.get("name"), "wuid": digits, "phoneNumber": phone}]
    body: dict[str, Any] = {"number": number}
    body |= {"options": {}, "contactMessage": cards} if old else {"contact": cards}
    return Request("POST", "/message/sendContact", body)


def _reaction(
    _number: str, message: Mapping[str, Any], about: Mapping[str, Any], *, old: bool
) -> Request:
    emoji = message.get("emoji", "")
    if old and not emoji:
        raise EngineError(
            "cannot take a reaction back: an Evolution server of version 1 does not",
            code="not_supported",
        )
    told = {"key": about["key"], "reaction": emoji}
    return Request("POST", "/message/sendReaction", {"reactionMessage": told} if old else told)


def _edit(
    number: str, message: Mapping[str, Any], about: Mapping[str, Any], *, old: bool
) -> Request:
    body = {"number": chat_jid(number), "text": message.get("text"), "key": about["key"]}
    return Request("PUT" if old else "POST", "/chat/updateMessage", body)


def _delete(
    _number: str, _message: Mapping[str, Any], about: Mapping[str, Any], *, old: bool
) -> Request:
    return Request("DELETE", "/chat/deleteMessageForEveryone", about["key"])


def _sent(
    route: str,
    number: str,
    part: str,
    content: Mapping[str, Any],
    more: Mapping[str, Any],
    *,
    old: bool,
) -> Request:
    """1.8 nests what 2.x lays side by side."""
    nested = {"number": number, "options": more, part: content}
    return Request(
        "POST", f"/message/{route}", nested if old else {"number": number, **more, **content}
    )


_READERS = {
    "text": _text,
    "media": _media,
    "location": _location,
    "contact": _contact,
    "reaction": _reaction,
    "edit": _edit,
    "delete": _delete,
}
ABOUT = {
    "reaction": ("message_id", "sender"),
    "edit": ("message_id", "sender"),
    "delete": ("message_id", "sender"),
}
"""The fields that name the message that one of this type is about, and who wrote that."""
