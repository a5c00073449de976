"""The address of the fleet's database: whether a connection to it is protected well enough.

It is read as libpq reads it, with the environment: what a URL shows first may be overruled by its
options. No sentence repeats the address: it may hold a password.
"""

import ipaddress
import re
from collections.abc import Callable
from itertools import zip_longest

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from agent.errors import ConfigError

_HOSTS = re.compile(r"(/[^,]*|@[^,@]*|[\w.:%-]*)(,(/[^,]*|@[^,@]*|[\w.:%-]*))*")
_PORTS = re.compile(r"[0-9,]*")
_CHECKED = "verify-full"
_UNCHECKED = ("require", "verify-ca")


def read_address(address: str) -> dict[str, str]:
    """What the address itself says; ConfigError where it is none."""
    try:
        options = {key: str(value) for key, value in conninfo_to_dict(address).items()}
    except (psycopg.Error, UnicodeError):
        options = {"port": "unreadable"}
    # Where a password has a bare @ or /, a part of it stands here, and libpq's errors repeat it.
    if not (
        _HOSTS.fullmatch(options.get("host", "")) and _PORTS.fullmatch(options.get("port", ""))
    ):
        raise ConfigError(
            "cannot use the address of the fleet's database: it is neither"
            " postgresql://USER@HOST:PORT/NAME nor words like host=HOST dbname=NAME; in a password"
            " write %40 for @, %2F for / and %3A for :",
            field="fleet.database",
        )
    return options


def usable_address(address: str, **more: str) -> str:
    """The address with `more` in it, where that says something; ConfigError: it may not be used."""
    options = read_address(address) | {key: value for key, value in more.items() if value}
    if problem := check_address(address):
        raise ConfigError(
            f"cannot use the address of the fleet's database: {problem}", field="fleet.database"
        )
    return make_conninfo("", **options)


def check_address(address: str) -> str:
    """Why it may not be used; "" = it may."""
    options = _options(address)
    if "service" in options:
        return "a service file decides where it leads: name the host in the address"
    mode = options.get("sslmode")
    if _all(options, _is_here) or mode in (_CHECKED, *_UNCHECKED):
        return ""
    if _all(options, _is_private) and mode == "disable":
        return ""
    return (
        "it leads over a network, where anybody could answer in the database's place:"
        " add sslmode=verify-full, and sslrootcert=FILE where the CA is your own"
    )


def warn_of_address(address: str) -> str:
    """What its operator accepts and should know; "" = nothing."""
    options = _options(address)
    mode = options.get("sslmode", "")
    if _all(options, _is_here) or mode == _CHECKED:
        return ""
    lacks = {
        "verify-ca": "the server's host name is not checked",
        "require": "the server's certificate is not checked",
    }.get(mode, "nothing is encrypted")
    return (
        f"with sslmode={mode} in the address of the fleet's database {lacks}: another server"
        " could answer in its place; use sslmode=verify-full"
    )


def _options(address: str) -> dict[str, str]:
    """With libpq's environment; the address goes before it."""
    defaults = {
        option.keyword.decode(): option.val.decode()
        for option in psycopg.pq.Conninfo.get_defaults()
        if option.val
    }
    return defaults | read_address(address)


def _all(options: dict[str, str], is_such: Callable[[str], bool]) -> bool:
    """hostaddr goes before host; a list of either has one entry for each server."""
    names = options.get("host", "").split(",")
    addresses = options.get("hostaddr", "").split(",")
    pairs = zip_longest(names, addresses, fillvalue="")
    return all(is_such(address or name) for name, address in pairs)


def _is_here(host: str) -> bool:
    address = _ip(host)
    if address is not None:
        return address.is_loopback
    return host in ("", "localhost") or host.startswith(("/", "@"))


def _is_private(host: str) -> bool:
    address = _ip(host)
    return address is not None and address.is_private and not address.is_unspecified


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
