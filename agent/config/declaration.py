"""One [[backend]]: the settings of all kinds of servers. Standard library only.

Plain http is allowed: most of these servers are on the same machine or in its own network.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from agent.core.setting import setting
from agent.core.words import parse_instance_id
from agent.errors import InvalidRequest

Fault = tuple[tuple[str, ...], str]
"""Keys, the one to blame first, and what is wrong with them."""


def url_fault(
    text: str, schemes: Sequence[str] = ("http", "https"), *, password: bool = False
) -> str:
    """Never with the URL itself: it may hold a password."""
    if not text:
        return ""
    shape = "unix:///PATH or " if "unix" in schemes else ""
    fault = f"it must be {shape}{schemes[0]}://HOST:PORT (or {schemes[1]}://…)"
    try:
        parts = urlsplit(text)
        good = parts.scheme in schemes and parts.port != 0
    except ValueError:
        return fault
    target = parts.path if parts.scheme == "unix" else parts.hostname
    if not good or not target or not text.isprintable() or " " in text:
        return fault
    if password:
        return ""
    if parts.username is not None or parts.password is not None:
        return f"{fault} without user and password, which logs would show"
    return f"{fault} without ? and #" if parts.query or parts.fragment else ""


def path_fault(text: str) -> str:
    if text and (not text.startswith("/") or ".." in text.split("/")):
        return f"it must be an absolute path without .., not {text!r:.80}"
    return ""


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

    name: str = setting("", "name of the backend here: [a-z0-9][a-z0-9_-]{0,47}")
    engine: str = setting("", "kind of server; the settings of each kind stand below")
    url: str = setting(
        "",
        "http://HOST:PORT or https://… of the server, without a password",
        check=url_fault,
        variable="BACKEND_URL",
    )
    key: str = setting(
        "", "API key of the server, or a ready token for whaticket", secret=True, check=key_fault
    )
    key_file: str = setting("", "file that holds only the key, instead of key", check=path_fault)
    adopt: tuple[str, ...] = setting(
        (), 'names of its sessions that become instances automatically; ["*"] = all, [] = none'
    )
    timeout: float = setting(10.0, "seconds that one request may take", low=0.05, high=120)
    parallel: int = setting(50, "simultaneous requests to the server", low=1, high=1000)
    ca_file: str = setting(
        "", 'file with the trusted certificates; "" = those of this machine', check=path_fault
    )
    tls_verify: bool = setting(True, "false = accept any certificate, for tests only")
    prove: bool = setting(True, "true = a session must also answer a harmless query")
    own: Any = NoSettings()
    """The settings that only its kind has."""

    def flat(self) -> dict[str, Any]:
        """All settings by their keys, as they stand in the table."""
        values = asdict(self)
        return values | (values.pop("own") or {})


def shared_faults(declaration: BackendDeclaration) -> Iterator[Fault]:
    for key in ("name", "engine", "url"):
        if not getattr(declaration, key):
            yield (key,), "every [[backend]] needs it"
    try:
        parse_instance_id(declaration.name)
    except InvalidRequest:
        words = "1 to 48 of a-z, 0-9, - and _, beginning with a letter or digit"
        yield ("name",), f"it must be {words}, not {declaration.name!r:.80}"
    if declaration.engine == "evolution" and not (declaration.key or declaration.key_file):
        yield ("key",), "an Evolution API server needs key or key_file"
    if declaration.ca_file and not declaration.tls_verify:
        yield ("tls_verify", "ca_file"), "tls_verify = false makes ca_file useless: remove one"
    values = declaration.flat()
    for key in ("key", "password"):
        if values.get(key) and values.get(f"{key}_file"):
            yield (f"{key}_file", key), f"{key} and {key}_file cannot both be given"
