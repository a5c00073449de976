"""WhatsApp's own words: phone numbers and chats in what callers send, and the words and numbers
with which engines and servers say why a session ended, as codes of the reason table. Receivers are
checked before a message is accepted; no engine sends to any other. Pure."""

import re
from collections.abc import Mapping
from contextlib import suppress

from agent.errors import InvalidRequest

FIRST_CODE, NEXT_CODE = 60.0, 20.0
"""Seconds that WhatsApp lets a login's first code live, and each later one."""

_NAME = re.compile(r"[0-9]{5,20}")
_CHAT = re.compile(r"[0-9-]{5,40}@(c\.us|s\.whatsapp\.net|g\.us|lid|newsletter)")
_DEVICE = re.compile(
    r"^([0-9]{5,20})(?:_[0-9]{1,3})?(?::[0-9]{1,5})?(?=@(?:c\.us|s\.whatsapp\.net|lid)$)"
)
"""The jid of one of a person's devices: 49…:12@s.whatsapp.net."""
_HALF_DEVICE = re.compile(r"[0-9]{5,20}_[0-9]+@(c\.us|s\.whatsapp\.net|lid)")


def is_phone(text: str) -> bool:
    return re.fullmatch(r"\+?[0-9][0-9 ().-]{4,24}", text) is not None


def digits_of(text: str) -> str:
    """Return a number's digits as the world dials it: 0049… and +49 (0)… are 49…."""
    return re.sub(r"[^0-9]", "", text.replace("(0)", "")).removeprefix("00")


def chat_of(to: str) -> str:
    """Return one name for a chat however its number is written: its messages keep one order."""
    name, at, domain = _DEVICE.sub(r"\1", to.strip()).partition("@")
    if at and domain not in ("c.us", "s.whatsapp.net"):
        return f"{name}@{domain}"
    return digits_of(name) or to.strip()


def person_of(text: str, field: str) -> str:
    """Return a person's jid, of a number or as any engine names it."""
    name, at, domain = text.strip().partition("@")
    name = name.partition(":")[0] if at else digits_of(name) if is_phone(name) else ""
    domain = domain if domain and domain != "c.us" else "s.whatsapp.net"
    if not _NAME.fullmatch(name) or domain not in ("s.whatsapp.net", "lid"):
        why = f"cannot use {field}: it is neither a phone number nor a person's id"
        raise InvalidRequest(why, field=field)
    return f"{name}@{domain}"


def phone_of(arguments: Mapping[str, object]) -> str:
    """Return the digits of the phone that wants a pairing code."""
    phone = arguments.get("phone")
    if not isinstance(phone, str) or not 7 <= len(digits_of(phone)) <= 15:
        raise InvalidRequest("cannot get a pairing code: phone is no number", field="phone")
    return digits_of(phone)


def check_receiver(to: str) -> str:
    """Return the receiver as engines take it."""
    chat = _DEVICE.sub(r"\1", to.strip())
    digits = digits_of(chat) if is_phone(chat) else ""
    if _HALF_DEVICE.fullmatch(to.strip()):
        cause = "has a _ and a number behind the person's number, which is no person's id; leave"
        cause += " both out"
    elif _CHAT.fullmatch(chat) or (_NAME.fullmatch(digits) and not digits.startswith("0")):
        return chat
    elif _NAME.fullmatch(digits):
        cause = "begins with 0; put its country's code there"
    else:
        cause = "is neither a phone number with its country's code (5 to 20 digits) nor a chat's id"
        cause += " (…@s.whatsapp.net, …@lid, …@g.us, …@newsletter)"
    raise InvalidRequest(f"cannot send: `to` {cause}", field="to")


def receiver_of(to: object) -> str:
    """Return digits of a phone number, or an engine's id of a chat with WhatsApp Web's domain."""
    chat = check_receiver(to if isinstance(to, str) else "").replace("@s.whatsapp.net", "@c.us")
    return chat if "@" in chat else digits_of(chat)


def is_answerable(chat: str) -> bool:
    """True if a program may send to this chat of a record: no status post, broadcast list or
    channel, and an address that `check_receiver` takes."""
    if chat.strip().endswith(("@broadcast", "@newsletter")):
        return False
    with suppress(InvalidRequest):
        return bool(check_receiver(chat))
    return False


WHATSAPP_CODES: Mapping[int, str] = {
    401: "logout",
    402: "temporary_ban",
    403: "banned",
    405: "client_outdated",
    406: "banned",
    408: "connection_lost",
    409: "proxy_block",
    411: "multidevice_mismatch",
    428: "connection_lost",
    440: "conflict",
    463: "restricted",
    500: "bad_session",
    501: "service_unavailable",
    503: "service_unavailable",
    515: "restart_required",
}
"""WhatsApp's own numbers, as Baileys and Evolution's statusReason use them. 413 and 414 are no
logout: WhatsApp says so of a token that expired, and libraries of what is too large."""

_WEB_REASONS: Mapping[str, tuple[str, ...]] = {
    # socket states and stream modes; wa-js events and what the page's backend announces
    "banned": ("SMB_TOS_BLOCK", "TOS_BLOCK", "unexpected_logout_modal", "account_locked"),
    "client_outdated": ("DEPRECATED_VERSION", "conn.needs_update", "client_version_outdated"),
    "conflict": ("CONFLICT",),
    "connection_lost": ("TIMEOUT", "OFFLINE", "DISCONNECTED", "socket_stream_disconnected"),
    "logout": ("LOGOUT", "conn.logout"),
    "page_crashed": ("page_crashed", "browser_gone"),
    "proxy_block": ("PROXYBLOCK",),
    "qr_idle": ("UNPAIRED_IDLE", "conn.qrcode_idle"),
    "service_unavailable": ("service_unavailable_503",),
    "storage_failed": ("storage_initialization_error",),
    "temporary_ban": ("account_temporarily_banned",),
}
WEB_WORDS = {word: reason for reason, words in _WEB_REASONS.items() for word in words}
"""Word of WhatsApp Web → reason; logout reasons other than a plain logout are among them."""

WEB_LOGOUT_REASONS = (
    *("user_initiated", "syncd_failure", "invalid_adv_status", "critical_sync_timeout"),
    *("syncd_timeout", "history_sync_timeout", "account_sync_timeout", "md_opt_out"),
    *("unknown_companion", "syncd_error_during_bootstrap", "account_sync_error"),
    *("storage_quota_exceeded", "primary_identity_key_change", "missing_enc_salt"),
    *("missing_screen_lock_salt", "web_fail_add_chat", "web_fail_offline_resume"),
    *("web_fail_storage_initialization", "web_fail_enc_salt", "cache_storage_open_failed"),
)


def code_reason(code: int | None, text: str = "") -> str:
    """Baileys' statusCode, or Evolution's statusReason or disconnectionReasonCode; None (a plain
    Error) is a closed connection."""
    if "QR code limit" in text or (code == 408 and "QR refs" in text):
        return "qr_idle"
    return "connection_lost" if code is None else WHATSAPP_CODES.get(code, "unknown")


def web_reason(word: str) -> str:
    """Return the reason for a stream mode, socket state, event or logout reason of WhatsApp Web."""
    lid = word.startswith(("lid_migration_", "lid_blocklist_"))
    return WEB_WORDS.get(word, "logout" if lid or word in WEB_LOGOUT_REASONS else "unknown")
