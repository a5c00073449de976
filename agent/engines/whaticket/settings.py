"""The settings of a whaticket-like backend and their rules. Standard library only."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from agent.core.findings.crypto_patterns import CryptoPattern, own_pattern
from agent.core.setting import setting
from agent.engines.remote.declaration import (
    BackendDeclaration,
    Fault,
    path_fault,
    read_declaration,
    refuse,
    url_fault,
)
from agent.engines.whaticket.contract import (
    PRESETS,
    ROUTES,
    WITHOUT_ID,
    Contract,
    adjust,
    route_fault,
)

SOURCES = ("file", "folder", "journal", "command", "pm2")
# Not an option of journalctl: it begins with no hyphen.
_UNIT = re.compile(r"[A-Za-z0-9:_.@\\][A-Za-z0-9:_.@\\-]{0,254}")
# Without a sign between the id and the star, session 1 would be session 10 too.
_KEYS_OF_ONE = re.compile(r"[^*?\[\]\\{}]*\{id\}[^*?\[\]\\{}]*[^*?\[\]\\{}A-Za-z0-9]\*")


def _sources_fault(sources: Sequence[str]) -> str:
    return next(filter(None, map(_source_fault, sources)), "")


def _source_fault(text: str) -> str:
    kind, colon, what = text.partition(":")
    if kind not in SOURCES or not colon or not what.strip():
        kinds = ", ".join(f"{name}:…" for name in SOURCES)
        return f"{text!r:.80} is no source of log lines; known: {kinds}"
    if kind == "journal":
        return "" if _UNIT.fullmatch(what) else f"{text!r:.80} names no unit"
    if kind == "command":
        fault = _command_fault(what)
        return fault and f"{text!r:.80} {fault}"
    fault = path_fault(what)
    return fault and f"{text!r:.80}: {fault}"


def _command_fault(text: str) -> str:
    try:
        program = shlex.split(text)[0]
    except (ValueError, IndexError):
        return "cannot be split into words"
    if "\0" in text:
        return "holds a zero byte"
    relative = "/" in program and not program.startswith("/")
    return "names its program by a relative path" if relative else ""


def _expression_fault(text: str) -> str:
    try:
        groups = re.compile(text).groups if text else 1
    except (re.error, RecursionError, OverflowError) as error:
        return f"it is no regular expression: {error}"
    return "" if groups == 1 else f"it must have one group, it has {groups}"


def _folder_fault(text: str) -> str:
    above, _, last = text.rstrip("/").rpartition("/")
    if text and ("{id}" in above or last.count("{id}") != 1 or not above):
        return "it must be like /path/{id}, with {id} once, in its last part"
    return path_fault(text)


def _keys_fault(pattern: str) -> str:
    if _KEYS_OF_ONE.fullmatch(pattern):
        return ""
    return "it must be like sessions:{id}:*, with a separator between {id} and *"


def _route(name: str, does: str) -> str:
    path = "/path" if name in WITHOUT_ID else "/path/{id}"
    return setting("", f'"VERB {path}" that {does}', check=partial(route_fault, name))


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """What a [[backend]] of this engine has beside the settings of every backend."""

    preset: str = setting("spec", "set of routes that the server has", choices=tuple(PRESETS))
    user: str = setting("", "e-mail address of the login")
    password: str = setting("", "password of the login", secret=True)
    password_file: str = setting(
        "", "file with the password, instead of password", check=path_fault
    )
    list_route: str = _route("list", "lists sessions, instead of the preset's")
    login_route: str = _route("login", "logs in, instead of the preset's")
    state_route: str = _route("state", "shows a session, instead of the preset's")
    start_route: str = _route("start", "starts a session")
    disconnect_route: str = _route("disconnect", 'disconnects a session, or "none"')
    restart_route: str = _route("restart", 'reconnects a session, or "none"')
    new_qr_route: str = _route("new_qr", 'makes a new QR code, or "none"')
    logout_route: str = _route("logout", 'ends a pairing, or "none"')
    create_route: str = _route("create", 'creates a session, or "none"')
    send_route: str = _route("send", 'sends a text, or "none"')
    disconnect_keeps_pairing: bool | None = setting(
        None, "false = its disconnect route logs out; unset = as its preset says"
    )
    disconnect_within: float = setting(
        30.0, "seconds until a disconnected session must be down", low=0.05, high=300
    )
    connect_within: float = setting(
        90.0, "seconds until a started session must be connected", low=0.05, high=300
    )
    logs: tuple[str, ...] = setting(
        (),
        "sources of its log: file:/… folder:/… journal:UNIT command:PROGRAM … pm2:/…/logs[/APP]",
        check=_sources_fault,
    )
    log_session: str = setting(
        "",
        "regular expression whose one group holds the session in a log line",
        check=_expression_fault,
    )
    auth_folder: str = setting("", "/path/{id} of a session's auth folder", check=_folder_fault)
    redis_url: str = setting(
        "",
        "redis://HOST:PORT/DATABASE that holds the sessions' keys",
        credentials=True,
        check=partial(url_fault, schemes=("redis", "rediss", "unix"), password=True),
        variable="REDIS_URL",
    )
    redis_pattern: str = setting(
        "sessions:{id}:*", "pattern of a session's keys in Redis", check=_keys_fault
    )


def find_faults(backend: BackendDeclaration) -> Iterator[Fault]:
    """What cannot be true together."""
    own: BackendSettings = backend.own
    key, password = backend.key or backend.key_file, own.password or own.password_file
    if not key and not (own.user and password):
        yield ("user", "key"), "it needs user and password, or key (a ready token)"
    if bool(own.user) != bool(password):
        yield ("password", "user"), "user and password (or password_file) belong together"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a log comes from: `file:/path`, `folder:/path`, `journal:unit`, `command:program
    args`, `pm2:/path[/app]`."""

    kind: str
    what: str

    def __str__(self) -> str:
        # A command's arguments may hold a password.
        shown = self.what.split()[0] if self.kind == "command" else self.what
        return f"{self.kind}:{shown}"


@dataclass(frozen=True, slots=True)
class WhaticketSettings:
    server: BackendDeclaration
    """Its key is a ready token, or where there is a login the token for sending."""
    own: BackendSettings
    contract: Contract
    logs: tuple[Source, ...] = ()
    log_session: re.Pattern[str] | None = None
    """Its one group names the session in a line."""
    patterns: tuple[CryptoPattern, ...] = ()
    """The agent's own [crypto] patterns, beside those of this engine."""


def read_settings(raw: Mapping[str, Any]) -> WhaticketSettings:
    """ConfigError names the setting that cannot be used."""
    backend = read_declaration(raw, BackendSettings())
    own: BackendSettings = backend.own
    for keys, fault in find_faults(backend):
        raise refuse(keys[-1], fault)
    routes = {name: getattr(own, f"{name}_route") for name in ROUTES}
    return WhaticketSettings(
        server=backend,
        own=own,
        contract=adjust(PRESETS[own.preset], routes, own.disconnect_keeps_pairing),
        logs=tuple(_source(text) for text in own.logs),
        log_session=re.compile(own.log_session) if own.log_session else None,
        patterns=_patterns(raw.get("crypto_patterns", [])),
    )


def _source(text: str) -> Source:
    kind, _, what = text.partition(":")
    return Source(kind, what.strip())


def _patterns(raw: object) -> tuple[CryptoPattern, ...]:
    if not isinstance(raw, list | tuple) or not all(isinstance(text, str) for text in raw):
        raise refuse("crypto_patterns", "not a list of texts")
    try:
        return tuple(own_pattern(text) for text in raw)
    except ValueError as error:
        raise refuse("crypto_patterns", str(error)) from error
