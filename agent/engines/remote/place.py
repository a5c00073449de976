"""Where a backend's server is and how it may be asked. Everything is checked before the first call.

Plain http is allowed: most of these servers stand on the same machine or in its own network.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from agent.errors import ConfigError

LONGEST_TIMEOUT = 120.0
MOST_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """The settings that every remote engine shares. Seconds."""

    url: str
    """Without a slash at its end; a path in it is kept (a server behind a proxy)."""
    timeout: float = 10.0
    """For one whole request, waiting for its turn included."""
    parallel: int = 50
    ca_file: str = ""
    tls_verify: bool = True


def read_place(told: Mapping[str, Any]) -> Place:
    """The shared settings out of a backend's; ConfigError names the one that cannot be used."""
    return Place(
        url=_base(told.get("url")),
        timeout=_number(told, "timeout", 10.0, smallest=0.05, largest=LONGEST_TIMEOUT),
        parallel=int(_number(told, "parallel", 50, smallest=1, largest=MOST_AT_ONCE)),
        ca_file=text(told, "ca_file"),
        tls_verify=flag(told, "tls_verify", True),
    )


def tls_of(place: Place) -> ssl.SSLContext | bool:
    """How the server must show who it is. A `ca_file` is trusted instead of the machine's list."""
    if not place.url.startswith("https:"):
        return True
    try:
        context = ssl.create_default_context(cafile=place.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise wrong(
            "ca_file", getattr(error, "strerror", None) or "no certificates in it"
        ) from error
    if not place.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def wrong(key: str, why: str) -> ConfigError:
    return ConfigError(f"cannot use backend setting {key!r:.60}: {why}", field=key)


def _base(url: object) -> str:
    if not isinstance(url, str):
        raise wrong("url", "not text" if url is not None else "missing")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise wrong("url", "not an address") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise wrong("url", "neither http://host nor https://host")
    if "@" in parts.netloc:
        raise wrong("url", "a user name or password does not belong into it")
    if parts.query or parts.fragment or any(char <= " " or char == "\x7f" for char in url):
        raise wrong("url", "more than an address and a path")
    return url.rstrip("/")


def _number(
    told: Mapping[str, Any], key: str, default: float, *, smallest: float, largest: float
) -> float:
    value = told.get(key, default)
    kinds = int if isinstance(default, int) else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise wrong(key, "not a number" if isinstance(default, float) else "not a whole number")
    if not smallest <= value <= largest:
        raise wrong(key, f"not between {smallest:g} and {largest:g}")
    return value


def text(told: Mapping[str, Any], key: str, default: str = "") -> str:
    value = told.get(key, default)
    if not isinstance(value, str):
        raise wrong(key, "not text")
    return value


def flag(told: Mapping[str, Any], key: str, default: bool) -> bool:
    value = told.get(key, default)
    if not isinstance(value, bool):
        raise wrong(key, "neither true nor false")
    return value


def header(told: Mapping[str, Any], key: str) -> str:
    """A secret that goes into a header as it is; an error never shows it."""
    value = text(told, key).strip()
    if any(not " " <= char <= "~" for char in value):
        raise wrong(key, "it holds what no header can carry")
    return value
