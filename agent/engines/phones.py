"""Phone numbers and chats in what callers send."""

import re
from collections.abc import Mapping
from typing import Any

from agent.errors import InvalidRequest

_PHONE = re.compile(r"\+?[0-9][0-9 ().-]{5,24}")
_NAME = re.compile(r"[0-9]{5,20}")
_CHAT = re.compile(r"[0-9-]{5,40}@(c\.us|g\.us|lid|newsletter)")


def is_phone(text: str) -> bool:
    return _PHONE.fullmatch(text) is not None


def digits_of(text: str) -> str:
    """As the world dials it: 0049… and +49 (0)… are 49…."""
    return re.sub(r"[^0-9]", "", text.replace("(0)", "")).removeprefix("00")


def person_of(text: str, field: str) -> str:
    """A person's jid, of a number or as any engine names it."""
    name, at, domain = text.strip().partition("@")
    name = name.partition(":")[0] if at else digits_of(name) if is_phone(name) else ""
    domain = domain if domain and domain != "c.us" else "s.whatsapp.net"
    if not _NAME.fullmatch(name) or domain not in ("s.whatsapp.net", "lid"):
        raise InvalidRequest(
            f"cannot use {text!r:.80}: {field} is neither a phone number nor a person's id",
            field=field,
        )
    return f"{name}@{domain}"


def phone_of(arguments: Mapping[str, Any]) -> str:
    """The digits of the phone that wants a pairing code."""
    phone = arguments.get("phone")
    digits = digits_of(str(phone))
    if not isinstance(phone, str) or not 7 <= len(digits) <= 15:
        raise InvalidRequest("cannot get a pairing code: phone is no number", field="phone")
    return digits


def receiver_of(to: object) -> str:
    """The digits of a phone number, or any engine's id of a chat with WhatsApp Web's domain."""
    if isinstance(to, str):
        chat = to.strip().replace("@s.whatsapp.net", "@c.us")
        if _CHAT.fullmatch(chat):
            return chat
        if is_phone(chat):
            return digits_of(chat)
    raise InvalidRequest("cannot send: `to` is neither a phone number nor a chat's id", field="to")
