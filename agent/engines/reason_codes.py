"""The words and numbers with which engines and servers say why a session ended, as codes of the
reason table."""

from collections.abc import Mapping

WHATSAPP_CODES: Mapping[int, str] = {
    400: "unknown",
    401: "logout",
    402: "temporary_ban",
    403: "banned",
    405: "client_outdated",
    406: "banned",
    408: "connection_lost",
    409: "proxy_block",
    411: "multidevice_mismatch",
    413: "logout",
    414: "logout",
    415: "unknown",
    418: "unknown",
    428: "connection_lost",
    440: "conflict",
    463: "restricted",
    500: "bad_session",
    501: "service_unavailable",
    503: "service_unavailable",
    515: "restart_required",
}
"""WhatsApp's own numbers, as Baileys and Evolution's statusReason use them."""

WEB_WORDS: Mapping[str, str] = {
    # socket states and stream modes
    "CONFLICT": "conflict",
    "DEPRECATED_VERSION": "client_outdated",
    "PROXYBLOCK": "proxy_block",
    "SMB_TOS_BLOCK": "banned",
    "TOS_BLOCK": "banned",
    "TIMEOUT": "connection_lost",
    "OFFLINE": "connection_lost",
    "DISCONNECTED": "connection_lost",
    "UNPAIRED_IDLE": "qr_idle",
    "LOGOUT": "logout",
    # wa-js events and what the page's backend announces
    "conn.logout": "logout",
    "conn.needs_update": "client_outdated",
    "conn.qrcode_idle": "qr_idle",
    "account_temporarily_banned": "temporary_ban",
    "unexpected_logout_modal": "banned",
    "storage_initialization_error": "storage_failed",
    "service_unavailable_503": "service_unavailable",
    "socket_stream_disconnected": "connection_lost",
    "page_crashed": "page_crashed",
    "browser_gone": "page_crashed",
    # logout reasons that are not a plain logout
    "client_version_outdated": "client_outdated",
    "account_locked": "banned",
}

WEB_LOGOUT_REASONS = frozenset(
    {
        "user_initiated",
        "syncd_failure",
        "invalid_adv_status",
        "critical_sync_timeout",
        "syncd_timeout",
        "history_sync_timeout",
        "account_sync_timeout",
        "md_opt_out",
        "unknown_companion",
        "syncd_error_during_bootstrap",
        "account_sync_error",
        "storage_quota_exceeded",
        "primary_identity_key_change",
        "missing_enc_salt",
        "missing_screen_lock_salt",
        "web_fail_add_chat",
        "web_fail_offline_resume",
        "web_fail_storage_initialization",
        "web_fail_enc_salt",
        "cache_storage_open_failed",
    }
)


def baileys_reason(code: int | None, text: str = "") -> str:
    """Baileys' statusCode; None (a plain Error) is a closed connection."""
    if code is None:
        return "connection_lost"
    if code == 408 and "QR refs" in text:
        return "qr_idle"
    return WHATSAPP_CODES.get(code, "unknown")


def evolution_reason(status_reason: int | None, text: str = "") -> str:
    """Evolution's statusReason or disconnectionReasonCode."""
    if "QR code limit" in text:
        return "qr_idle"
    return baileys_reason(status_reason, text)


def web_reason(word: str) -> str:
    """A stream mode, socket state, event or logout reason of WhatsApp Web."""
    if word in WEB_WORDS:
        return WEB_WORDS[word]
    if word in WEB_LOGOUT_REASONS or word.startswith(("lid_migration_", "lid_blocklist_")):
        return "logout"
    return "unknown"
