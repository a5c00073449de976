"""Receivers of messages, checked before a message is accepted; no engine sends to any other.
Pure."""

import re

from agent.engines.phones import digits_of
from agent.errors import InvalidRequest

_PHONE = re.compile(r"\+?[0-9][0-9 ().-]{4,24}")
_CHAT = re.compile(r"[0-9-]{5,40}@(c\.us|s\.whatsapp\.net|g\.us|lid|newsletter)")
_DEVICE = re.compile(
    r"^([0-9]{5,20})(?:_[0-9]{1,3})?(?::[0-9]{1,5})?(?=@(?:c\.us|s\.whatsapp\.net|lid)$)"
)
"""The jid of one of a person's devices: 49…:12@s.whatsapp.net."""
_HALF_DEVICE = re.compile(r"[0-9]{5,20}_[0-9]+@(c\.us|s\.whatsapp\.net|lid)")
_DIGITS = range(5, 21)


def person_of(to: str) -> str:
    """The jid without the device that it names."""
    return _DEVICE.sub(r"\1", to)


def check_receiver(to: str) -> str:
    """The receiver as engines take it."""
    if _HALF_DEVICE.fullmatch(to.strip()):
        raise InvalidRequest(
            "cannot send: `to` has a _ and a number behind the person's number, which is nobody's"
            " id; leave both out",
            field="to",
        )
    chat = person_of(to.strip())
    if _CHAT.fullmatch(chat):
        return chat
    digits = digits_of(chat)
    if _PHONE.fullmatch(chat) and len(digits) in _DIGITS:
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
