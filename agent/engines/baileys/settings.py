"""What an instance of the baileys engine can be told. Standard library only."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.core.words import Address
from agent.errors import ConfigError

WHATSAPP = "wss://web.whatsapp.com/ws/chat"
KNOWN_GOOD = "known_good"
_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,6}\.[0-9]{1,12}")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class BaileysSettings:
    url: str = WHATSAPP
    """Another address only for tests and demonstrations: wss, or ws on loopback."""
    version: str = ""
    """"" = the library's own; known_good = the last that connected; or one as 2.3000.1043857760."""
    proxy: str = ""
    """http://, https:// or socks5:// with host and port, for all of its traffic."""
    device_name: str = ""
    """What the phone shows in its list of linked devices; "" = the library's own."""
    client_starts: int = 5
    """How often in ten minutes the worker starts a client that ended by itself."""


def read_settings(told: Mapping[str, Any]) -> BaileysSettings:
    """Raise ConfigError naming the setting that cannot be used."""
    known = {each.name: each.type for each in fields(BaileysSettings)}
    for key, value in told.items():
        if key not in known:
            raise _wrong(key, f"unknown, known are {', '.join(known)}")
        if not isinstance(value, str if known[key] is str else int) or isinstance(value, bool):
            raise _wrong(key, "not text" if known[key] is str else "not a whole number")
    settings = BaileysSettings(**told)
    _check_url(settings.url)
    if settings.version not in ("", KNOWN_GOOD) and not _VERSION.fullmatch(settings.version):
        raise _wrong("version", f"neither {KNOWN_GOOD} nor a version as 2.3000.1043857760")
    if settings.proxy:
        _check_proxy(settings.proxy)
    if len(settings.device_name) > 50:
        raise _wrong("device_name", "longer than 50 characters")
    if not 0 <= settings.client_starts <= 100:
        raise _wrong("client_starts", "out of range")
    return settings


def needed_address(told: Mapping[str, Any], _folder: Path) -> Address | None:
    """WhatsApp's address on the way that the client takes; None for settings it refuses."""
    try:
        settings = read_settings(told)
    except ConfigError:
        return None
    parts = urlsplit(settings.url)
    scheme = "https" if parts.scheme == "wss" else "http"
    return Address(f"{scheme}://{parts.netloc}/", settings.proxy)


def _check_url(url: str) -> None:
    parts = _split("url", url)
    safe = parts.scheme == "wss" or (parts.scheme == "ws" and parts.hostname in _LOOPBACK)
    if not safe or not parts.hostname or "@" in parts.netloc:
        raise _wrong("url", "neither wss nor ws on loopback")


def _check_proxy(proxy: str) -> None:
    parts = _split("proxy", proxy)
    if parts.scheme not in ("http", "https", "socks5") or not parts.hostname or parts.path:
        raise _wrong("proxy", "not http://, https:// or socks5:// with host and port")


def _split(key: str, text: str) -> Any:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise _wrong(key, str(error)) from error
    return parts


def _wrong(key: str, why: str) -> ConfigError:
    return ConfigError(f"cannot use baileys setting {key!r:.60}: {why}", field=key)
