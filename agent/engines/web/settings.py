"""What an instance of the web engine can be told, and what the machine tells it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.core.words import Address
from agent.engines.web.arguments import BINARIES, SHELL
from agent.errors import ConfigError

WHATSAPP = "https://web.whatsapp.com/"
LIVE, KNOWN_GOOD = "live", "known_good"
_VERSION = re.compile(r"[0-9][0-9A-Za-z.-]{0,39}")
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


@dataclass(frozen=True, slots=True)
class WebSettings:
    browser: str = SHELL
    """headless-shell: a third of the memory; chromium: the full browser."""
    url: str = WHATSAPP
    """Another address only for tests and demonstrations: https, or http on loopback."""
    page: str = LIVE
    """live: what WhatsApp serves; known_good: the last page that connected; or that version."""
    proxy: str = ""
    """scheme://host:port for all of the browser's traffic."""
    device_name: str = ""
    """What the phone shows in its list of linked devices; "" leaves it to WhatsApp."""
    browser_starts: int = 3
    """How often a browser that died is started anew in ten minutes before the worker gives up."""


def read_settings(told: Mapping[str, Any]) -> WebSettings:
    """Raise ConfigError naming the setting that cannot be used."""
    known = {each.name: each.type for each in fields(WebSettings)}
    # A phone number on a command line is read as a whole number.
    told = {
        key: str(value) if known.get(key) is str and type(value) is int else value
        for key, value in told.items()
    }
    for key, value in told.items():
        if key not in known:
            raise _wrong(key, f"unknown, known are {', '.join(known)}")
        if not isinstance(value, str if known[key] is str else int) or isinstance(value, bool):
            raise _wrong(key, "not text" if known[key] is str else "not a whole number")
    settings = WebSettings(**told)
    if settings.browser not in BINARIES:
        raise _wrong("browser", f"neither {' nor '.join(BINARIES)}")
    if settings.page not in (LIVE, KNOWN_GOOD) and not _VERSION.fullmatch(settings.page):
        raise _wrong("page", f"neither {LIVE} nor {KNOWN_GOOD} nor a version")
    _check_url(settings.url)
    if settings.proxy:
        _check_proxy(settings.proxy)
    if len(settings.device_name) > 50:
        raise _wrong("device_name", "longer than 50 characters")
    if not 0 <= settings.browser_starts <= 100:
        raise _wrong("browser_starts", "out of range")
    return settings


def needed_address(told: Mapping[str, Any], _folder: Path) -> Address | None:
    """The site's own address, on the way that the browser takes; None for settings it refuses."""
    try:
        settings = read_settings(told)
    except ConfigError:
        return None
    parts = urlsplit(settings.url)
    return Address(f"{parts.scheme}://{parts.netloc}/", settings.proxy)


def _check_url(url: str) -> None:
    parts = _split("url", url)
    safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    if not safe or not parts.hostname or "@" in parts.netloc:
        raise _wrong("url", "neither https nor http on loopback")


def _check_proxy(proxy: str) -> None:
    parts = _split("proxy", proxy)
    if parts.scheme not in ("http", "https", "socks5") or not parts.hostname or parts.path:
        raise _wrong("proxy", "not http://, https:// or socks5:// with host and port")
    if "@" in parts.netloc:
        raise _wrong("proxy", "the browser takes no user name or password there")


def _split(key: str, text: str) -> Any:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise _wrong(key, str(error)) from error
    return parts


def _wrong(key: str, why: str) -> ConfigError:
    return ConfigError(f"cannot use web setting {key!r:.60}: {why}", field=key)
