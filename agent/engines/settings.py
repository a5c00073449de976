"""Reads any engine's table of settings, and the machine's words for it in its worker's environment;
the rules of addresses that local engines share. Standard library only: the agent's configuration
uses it too."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from agent.core.setting import read_value, settings_of
from agent.core.words import Address
from agent.errors import ConfigError

T = TypeVar("T")

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PLAIN_TO_HTTP = {"http": "http", "ws": "http"}


def read_table(kind: type[T], raw: Mapping[str, Any], words: str) -> T:
    """The settings dataclass `kind` out of a raw table; ConfigError names the wrong setting."""
    plain = kind()
    marks = {field.name: mark for field, mark in settings_of(plain)}
    values = {}
    for key, value in raw.items():
        if key not in marks:
            raise wrong(words, key, f"unknown, known are {', '.join(marks)}")
        default = getattr(plain, key)
        # A phone number on a command line is read as a whole number.
        given = str(value) if isinstance(default, str) and type(value) is int else value
        try:
            values[key] = read_value(given, default, marks[key])
        except ValueError as error:
            raise wrong(words, key, str(error)) from error
    return kind(**values)


def wrong(words: str, key: str, fault: str) -> ConfigError:
    return ConfigError(f"cannot use {words} {key!r:.60}: {fault}", field=key)


def server_fault(url: str, secure: str, plain: str) -> str:
    """Why WhatsApp cannot be asked at this address: `plain` text leaves no machine."""
    parts = _split(url)
    safe = parts is not None and (
        parts.scheme == secure or (parts.scheme == plain and parts.hostname in _LOOPBACK)
    )
    if parts is None or not safe or not parts.hostname or "@" in parts.netloc:
        return f"it must be {secure}://HOST, or {plain}://HOST on loopback"
    return ""


def proxy_fault(proxy: str) -> str:
    parts = _split(proxy)
    if not proxy or (
        parts is not None
        and parts.scheme in ("http", "https", "socks5")
        and parts.hostname
        and not parts.path
    ):
        return ""
    return "it must be http://, https:// or socks5:// with host and port"


def device_name_fault(name: str) -> str:
    return "it must have at most 50 characters" if len(name) > 50 else ""


def address_of(url: str, proxy: str) -> Address:
    """What a client that connects to `url` must reach first."""
    parts = urlsplit(url)
    return Address(f"{_PLAIN_TO_HTTP.get(parts.scheme, 'https')}://{parts.netloc}/", proxy)


def origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return None
    return parts


@dataclass(frozen=True, slots=True)
class Finding:
    """What on this machine keeps an engine from working, and what cures it."""

    code: str
    sentence: str
    cure: str
    serious: bool = True
    """False: it works, only less well."""


def cache_folder() -> Path:
    """Where the machine keeps what can be fetched again; else beside the sessions."""
    if named := os.environ.get("WA_CACHE_PATH") or os.environ.get("CACHE_PATH"):
        return Path(named)
    return Path(os.environ.get("WA_SESSION_ROOT", ".state/sessions")).absolute().parent / "cache"


def probe_limit() -> float:
    """Seconds for one shallow question, so that the watchdog hears an answer, good or bad."""
    try:
        watchdog = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        watchdog = 0.0
    return min(3.0, watchdog * 0.35) if watchdog else 3.0


def in_path(name: str, path: str | None = None) -> str | None:
    """As shutil.which(), whose module brings three compressors into every worker."""
    path = "" if "/" in name else path or os.environ.get("PATH", os.defpath)
    found = (Path(folder) / name for folder in path.split(":"))
    return next((str(it) for it in found if os.access(it, os.X_OK) and it.is_file()), None)


def inside(raw: Any, *keys: str) -> Any:
    """The value below these keys; None where one of them is missing."""
    for key in keys:
        raw = raw.get(key) if isinstance(raw, Mapping) else None
    return raw


def text(raw: Any, most: int = 200) -> str:
    """The text; "" for any other value."""
    return raw[:most] if isinstance(raw, str) else ""


def whole(raw: Any) -> int | None:
    return raw if type(raw) is int else None


def moment(raw: Any) -> float:
    """Unix seconds of an ISO time; 0.0 for any other value."""
    try:
        return datetime.fromisoformat(raw).timestamp() if isinstance(raw, str) else 0.0
    except (ValueError, OverflowError, OSError):
        return 0.0
