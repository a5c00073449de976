"""Phone numbers and chats in what callers send. Receivers are checked before a message is accepted;
no engine sends to any other. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from agent.errors import InvalidRequest

_PHONE = re.compile(r"\+?[0-9][0-9 ().-]{4,24}")
_NAME = re.compile(r"[0-9]{5,20}")
_CHAT = re.compile(r"[0-9-]{5,40}@(c\.us|s\.whatsapp\.net|g\.us|lid|newsletter)")
_DEVICE = re.compile(
    r"^([0-9]{5,20})(?:_[0-9]{1,3})?(?::[0-9]{1,5})?(?=@(?:c\.us|s\.whatsapp\.net|lid)$)"
)
"""The jid of one of a person's devices: 49…:12@s.whatsapp.net."""
_HALF_DEVICE = re.compile(r"[0-9]{5,20}_[0-9]+@(c\.us|s\.whatsapp\.net|lid)")


def is_phone(text: str) -> bool:
    return _PHONE.fullmatch(text) is not None


def digits_of(text: str) -> str:
    """As the world dials it: 0049… and +49 (0)… are 49…."""
    return re.sub(r"[^0-9]", "", text.replace("(0)", "")).removeprefix("00")


def without_device(to: str) -> str:
    """The jid without the device that it names."""
    return _DEVICE.sub(r"\1", to)


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


def check_receiver(to: str) -> str:
    """The receiver as engines take it."""
    if _HALF_DEVICE.fullmatch(to.strip()):
        raise InvalidRequest(
            "cannot send: `to` has a _ and a number behind the person's number, which is nobody's"
            " id; leave both out",
            field="to",
        )
    chat = without_device(to.strip())
    if _CHAT.fullmatch(chat):
        return chat
    if is_phone(chat) and _NAME.fullmatch(digits := digits_of(chat)):
        if digits.startswith("0"):
            raise InvalidRequest(
                "cannot send: `to` begins with 0; put its country's code there", field="to"
            )
        return chat
    raise InvalidRequest(
        "cannot send: `to` is neither a phone number with its country's code (5 to 20 digits) nor"
        " a chat's id (…@s.whatsapp.net, …@lid, …@g.us, …@newsletter)",
        field="to",
    )


def receiver_of(to: object) -> str:
    """The digits of a phone number, or any engine's id of a chat with WhatsApp Web's domain."""
    chat = check_receiver(to if isinstance(to, str) else "").replace("@s.whatsapp.net", "@c.us")
    return chat if "@" in chat else digits_of(chat)


def is_answerable(chat: str) -> bool:
    """True if a program may send to this chat of a record: no status post, broadcast list or
    channel, and an address that `check_receiver` takes."""
    if chat.strip().endswith(("@broadcast", "@newsletter")):
        return False
    try:
        check_receiver(chat)
    except InvalidRequest:
        return False
    return True
