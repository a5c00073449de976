"""[[backend]]: servers of other programs whose sessions the agent watches, and their secrets.

Plain http is allowed: most of these servers are on the same machine or in its own network.
"""

import logging
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.core.setting import HIDDEN, Fault, name_fault, path_fault, setting, settings_of
from agent.errors import ConfigError

log = logging.getLogger(__name__)

LONGEST_SECRET = 16 * 1024
"""Characters of a key or a password; a longer file is something else."""


def url_fault(
    text: str, schemes: Sequence[str] = ("http", "https"), *, password: bool = False
) -> str:
    """Never with the URL itself: it may hold a password."""
    shape = "unix:///PATH or " if "unix" in schemes else ""
    fault = f"it must be {shape}{schemes[0]}://HOST:PORT (or {schemes[1]}://…)"
    try:
        parts = urlsplit(text)
        target = parts.path if parts.scheme == "unix" else parts.hostname
        good = parts.scheme in schemes and parts.port != 0 and target
    except ValueError:
        return fault
    if text and not (good and text.isprintable() and " " not in text):
        return fault
    if not password and (parts.username is not None or parts.password is not None):
        return f"{fault} without user and password, which logs would show"
    return f"{fault} without ? and #" if not password and (parts.query or parts.fragment) else ""


def key_fault(text: str) -> str:
    """Why a header cannot carry this key; "" = it can."""
    if not text.isascii() or not text.isprintable() or " " in text:
        return "it must be one line of printable ASCII without blanks"
    return ""


@dataclass(frozen=True, slots=True)
class NoSettings:
    """Of a kind of server without settings of its own."""


@dataclass(frozen=True, slots=True)
class BackendDeclaration:
    """One server. Durations are seconds."""

    name: str = setting("", "its name here: [a-z0-9][a-z0-9_-]{0,47}", check=name_fault)
    engine: str = setting("", "kind of server; the settings of each kind stand below")
    url: str = setting("", "http(s)://HOST:PORT of the server, without a password", check=url_fault)
    key: str = setting("", "its API key, or a whaticket token", secret=True, check=key_fault)
    key_file: str = setting("", "file that holds only the key, instead of key", check=path_fault)
    adopt: tuple[str, ...] = setting(
        (), 'names of its sessions that become instances automatically; ["*"] = all, [] = none'
    )
    timeout: float = setting(10.0, "seconds that one request may take", low=0.05, high=120)
    parallel: int = setting(50, "simultaneous requests to the server", low=1, high=1000)
    ca_file: str = setting("", 'trusted certificates; "" = those of this machine', check=path_fault)
    tls_verify: bool = setting(True, "false = accept any certificate, for tests only")
    prove: bool = setting(True, "true = a session must also answer a harmless query")
    own: Any = NoSettings()
    """The settings that only its kind has."""

    def flat(self) -> dict[str, Any]:
        """All settings by their keys, as they stand in the table."""
        values = asdict(self)
        return values | (values.pop("own") or {})


def shared_faults(declaration: BackendDeclaration) -> Iterator[Fault]:
    if declaration.engine == "evolution" and not (declaration.key or declaration.key_file):
        yield ("key",), "an Evolution API server needs key or key_file"
    if declaration.ca_file and not declaration.tls_verify:
        yield ("tls_verify", "ca_file"), "tls_verify = false makes ca_file useless: remove one"
    values = declaration.flat()
    for key in ("key", "password"):
        if values.get(key) and values.get(f"{key}_file"):
            yield (f"{key}_file", key), f"{key} and {key}_file cannot both be given"


def with_secrets(declaration: BackendDeclaration) -> BackendDeclaration:
    """With its key and password, wherever they lie. ConfigError says which cannot be read."""
    found: dict[str, Any] = {}
    values = declaration.flat()
    # A key becomes a header; a password may hold whatever it likes.
    for key, fault in (("key", key_fault), ("password", lambda _text: "")):
        if path := values.get(f"{key}_file"):
            whose = f"{key}_file of backend {declaration.name}"
            found[key] = read_secret(path, whose, f"backend.{key}_file", fault)
    own = declaration.own
    if password := found.pop("password", ""):
        own = replace(own, password=password)
    return replace(declaration, own=own, **found)


def hide_secrets(table: Any) -> Any:
    """The row with *** for keys and passwords."""
    hidden: dict[str, Any] = {}
    for its, mark in settings_of(table):
        value = getattr(table, its.name)
        if value and (mark.secret or mark.credentials):
            hidden[its.name] = HIDDEN if mark.secret else _shown_url(value)
    if own := getattr(table, "own", None):
        hidden["own"] = hide_secrets(own)
    return replace(table, **hidden)


def _shown_url(url: str) -> str:
    """The URL without password and query, which may be secrets."""
    parts = urlsplit(url)
    credentials, _, host = parts.netloc.rpartition("@")
    shown = f"{HIDDEN}@{host}" if credentials else parts.netloc
    return parts._replace(netloc=shown, query="", fragment="").geturl()


def read_secret(path: str, whose: str, field: str, fault: Callable[[str], str]) -> str:
    """The file's one line. `whose` is for the error, which never shows the content; `fault` says
    what is wrong with a text."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(LONGEST_SECRET + 1)
        if len(text) > LONGEST_SECRET:
            raise ValueError(f"it is longer than {LONGEST_SECRET} characters")
        text = text.removesuffix("\n").removesuffix("\r")
        if problem := fault(text) if text else "it is empty":
            raise ValueError(problem)
    except (OSError, ValueError) as error:
        undecoded = isinstance(error, UnicodeDecodeError)  # its own text shows what the file holds
        cause = "it is not UTF-8" if undecoded else getattr(error, "strerror", None) or str(error)
        origin = error if isinstance(error, OSError) else None
        raise ConfigError(f"cannot read {path} ({whose}): {cause}", field=field) from origin
    if stat.S_IMODE(mode) & 0o004:
        log.warning("%s is open to every user: chmod o-rwx %s", path, path)
    return text
