"""Evolution's names for what the agent knows under its own. Pure."""

import hashlib
import re
import uuid

from agent.core.model import ConnectionStatus, Instance

_OF_ACCOUNT = "@s.whatsapp.net"
_DEVICE = re.compile(r":\d+(?=@|$)")
_STATES = {
    ConnectionStatus.CONNECTED: "open",
    ConnectionStatus.DISCONNECTED: "close",
    ConnectionStatus.AUTH_FAILURE: "close",
}
ACKS = {
    "error": "ERROR",
    "server": "SERVER_ACK",
    "delivered": "DELIVERY_ACK",
    "read": "READ",
    "played": "PLAYED",
}
_SOURCES = (
    (re.compile(r"3A.{18}"), "ios"),
    (re.compile(r"3E.{20}"), "web"),
    (re.compile(r".{21}|.{32}"), "android"),
    (re.compile(r"3F.*|.{18}"), "desktop"),
)
_SPACE = uuid.UUID("6c1a6b1e-8f0c-5c0e-9d5a-2b1d1c7a9e40")


def state_of(status: ConnectionStatus) -> str:
    """open, connecting or close."""
    return _STATES.get(status, "connecting")


def jid_of(text: str) -> str:
    """A chat's or a person's, as Baileys writes it; a bare number is a person's."""
    if not text:
        return ""
    plain = _DEVICE.sub("", text).replace("@c.us", _OF_ACCOUNT)
    return plain if "@" in plain else f"{re.sub('[^0-9]', '', plain)}{_OF_ACCOUNT}"


def is_group(jid: str) -> bool:
    return jid.endswith("@g.us")


def instance_uuid(instance: Instance) -> str:
    """The same as long as the instance is there."""
    return str(uuid.uuid5(_SPACE, f"{instance.id} {instance.created_wall!r}"))


def row_id(instance: Instance, message_id: str) -> str:
    """In the place of the id of a row of Evolution's database."""
    text = f"{instance.id} {instance.created_wall!r} {message_id}"
    return "c" + hashlib.sha256(text.encode()).hexdigest()[:24]


def source_of(message_id: str) -> str:
    """What wrote the message, as its id tells."""
    return next((name for form, name in _SOURCES if form.fullmatch(message_id)), "unknown")
