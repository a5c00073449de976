"""Checks of [[backend]] tables: addresses, keys of another engine, duplicates."""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from agent.config.backends import (
    EVOLUTION,
    REMOTE_ENGINES,
    WHATICKET,
    BackendDeclaration,
    secret_fault,
)
from agent.config.config import Config, Declaration
from agent.config.problem import Problem
from agent.core.model import parse_instance_id
from agent.errors import InvalidRequest

_NEEDED = ("list", "login", "state", "start")
_OF_ONE_SESSION = ("state", "start", "disconnect", "restart", "new_qr", "logout")
ROUTES = (*_OF_ONE_SESSION, "list", "login", "create", "send")
NONE = "none"
"""As a route: this server has none."""

ONLY_FOR = {
    EVOLUTION: ("webhook", "webhook_url"),
    WHATICKET: (
        "preset",
        "user",
        "password",
        "password_file",
        *(f"{name}_route" for name in ROUTES),
        "disconnect_keeps_pairing",
        "disconnect_within",
        "connect_within",
        "logs",
        "log_session",
        "auth_folder",
        "redis_url",
        "redis_pattern",
    ),
}
_ROUTE = re.compile(r"(GET|POST|PUT|PATCH|DELETE) (/[A-Za-z0-9._~/{}:-]{0,200})")
# Without a sign between the id and the star, session 1 would be session 10 too.
_KEYS_OF_ONE = re.compile(r"[^*?\[\]\\{}]*\{id\}[^*?\[\]\\{}]*[^*?\[\]\\{}A-Za-z0-9]\*")
_SOURCES = ("file", "folder", "journal", "command", "pm2")
_UNIT = re.compile(r"[A-Za-z0-9:_.@\\][A-Za-z0-9:_.@\\-]{0,254}")

Found = Iterator[tuple[tuple[str, ...], str]]
"""Keys and what is wrong with them."""


def find_backend_problem(config: Config) -> Problem | None:
    """The first thing that cannot be, or None."""
    names: set[str] = set()
    for number, one in enumerate(config.backend):
        for keys, cause in _faults(one):
            return Problem(tuple(f"backend[{number}].{key}" for key in keys), cause)
        if one.name in names:
            return Problem((f"backend[{number}].name",), f"{one.name} is declared twice")
        names.add(one.name)
    return _instances(config.instance, {one.name: one.engine for one in config.backend})


def _faults(one: BackendDeclaration) -> Found:
    for check in _CHECKS:
        yield from check(one)


def _name(one: BackendDeclaration) -> Found:
    for key in ("name", "engine", "url"):
        if not getattr(one, key):
            yield (key,), "every [[backend]] needs it"
    try:
        parse_instance_id(one.name)
    except InvalidRequest:
        words = "1 to 48 of a-z, 0-9, - and _, beginning with a letter or digit"
        yield ("name",), f"it must be {words}, not {one.name!r:.80}"


def _engine(one: BackendDeclaration) -> Found:
    """A key that the server's engine never reads is a mistake."""
    defaults = BackendDeclaration()
    for engine, keys in ONLY_FOR.items():
        for key in keys:
            if engine != one.engine and getattr(one, key) != getattr(defaults, key):
                yield (key, "engine"), f"it is only for engine {engine}, this one is {one.engine}"


def _addresses(one: BackendDeclaration) -> Found:
    for key in ("url", "webhook_url"):
        if fault := _url_fault(getattr(one, key), ("http", "https")):
            yield (key,), fault
    if fault := _url_fault(one.redis_url, ("redis", "rediss", "unix"), password=True):
        yield ("redis_url",), fault
    if one.webhook and not one.webhook_url:
        yield ("webhook_url", "webhook"), "webhook = true needs the address of this agent's API"
    if one.ca_file and not one.tls_verify:
        yield ("tls_verify", "ca_file"), "tls_verify = false makes ca_file useless: remove one"


def _url_fault(text: str, schemes: Sequence[str], *, password: bool = False) -> str:
    """Never with the URL itself: it may hold a password."""
    if not text:
        return ""
    shape = "unix:///PATH or " if "unix" in schemes else ""
    wrong = f"it must be {shape}{schemes[0]}://HOST:PORT (or {schemes[1]}://…)"
    try:
        parts = urlsplit(text)
        good = parts.scheme in schemes and parts.port != 0
    except ValueError:
        return wrong
    place = parts.path if parts.scheme == "unix" else parts.hostname
    if not good or not place or not text.isprintable() or " " in text:
        return wrong
    if password:
        return ""
    if parts.username is not None or parts.password is not None:
        return f"{wrong} without user and password, which logs would show"
    return f"{wrong} without ? and #" if parts.query or parts.fragment else ""


def _secrets(one: BackendDeclaration) -> Found:
    for plain in ("key", "password"):
        file = f"{plain}_file"
        if getattr(one, plain) and getattr(one, file):
            yield (file, plain), f"{plain} and {file} cannot both be given"
    if fault := secret_fault(one.key):
        yield ("key",), fault
    key, password = one.key or one.key_file, one.password or one.password_file
    if one.engine == EVOLUTION and not key:
        yield ("key",), "an Evolution API server needs key or key_file"
    if one.engine == WHATICKET and not key and not (one.user and password):
        yield ("user", "key"), "it needs user and password, or key (a ready token)"
    if bool(one.user) != bool(password):
        yield ("password", "user"), "user and password (or password_file) belong together"


def _paths(one: BackendDeclaration) -> Found:
    for key in ("key_file", "password_file", "ca_file", "auth_folder"):
        value = getattr(one, key)
        if value and (fault := _path_fault(value)):
            yield (key,), fault
    for source in one.logs:
        if fault := _source_fault(source):
            yield ("logs",), fault


def _path_fault(text: str) -> str:
    if not text.startswith("/") or ".." in text.split("/"):
        return f"it must be an absolute path without .., not {text!r:.80}"
    return ""


def _source_fault(text: str) -> str:
    scheme, colon, rest = text.partition(":")
    if scheme not in _SOURCES or not colon or not rest.strip():
        known = ", ".join(f"{name}:…" for name in _SOURCES)
        return f"{text!r:.80} is no source of log lines; known: {known}"
    if scheme == "journal":
        return "" if _UNIT.fullmatch(rest) else f"{text!r:.80} names no unit"
    if scheme == "command":
        fault = _command_fault(rest)
        return fault and f"{text!r:.80} {fault}"
    fault = _path_fault(rest)
    return fault and f"{text!r:.80}: {fault}"


def _command_fault(text: str) -> str:
    try:
        program = shlex.split(text)[0]
    except (ValueError, IndexError):
        return "cannot be split into words"
    relative = "/" in program and not program.startswith("/")
    return "names its program by a relative path" if relative else ""


def _patterns(one: BackendDeclaration) -> Found:
    if one.auth_folder and (fault := _folder_fault(one.auth_folder)):
        yield ("auth_folder",), fault
    if not _KEYS_OF_ONE.fullmatch(one.redis_pattern):
        yield (
            ("redis_pattern",),
            "it must be like sessions:{id}:*, with a separator between {id} and *",
        )
    for name in ROUTES:
        route = getattr(one, f"{name}_route")
        if route and (fault := _route_fault(name, route)):
            yield (f"{name}_route",), fault
    if one.log_session:
        try:
            groups = re.compile(one.log_session).groups
        except (re.error, RecursionError, OverflowError) as error:
            yield ("log_session",), f"it is no regular expression: {error}"
        else:
            if groups != 1:
                yield ("log_session",), f"it must have one group, it has {groups}"


def _folder_fault(text: str) -> str:
    above, _, last = text.rstrip("/").rpartition("/")
    if "{id}" in above or last.count("{id}") != 1 or not above:
        return "it must be like /path/{id}, with {id} once, in its last part"
    return ""


def _route_fault(name: str, text: str) -> str:
    if text == NONE:
        return "the engine needs this route" if name in _NEEDED else ""
    match = _ROUTE.fullmatch(text)
    if match is None or ".." in text:
        return f'it must be "VERB /path" with GET, POST, PUT, PATCH or DELETE, not {text!r:.80}'
    places, path = (1 if name in _OF_ONE_SESSION else 0), match[2]
    if path.count("{id}") != places:
        return "its path must hold {id} once" if places else "its path takes no {id}"
    rest = path.replace("{id}", "")
    return "only {id} may be in { }" if "{" in rest or "}" in rest else ""


_CHECKS: tuple[Callable[[BackendDeclaration], Found], ...] = (
    _name,
    _engine,
    _addresses,
    _secrets,
    _paths,
    _patterns,
)


def _instances(instances: Sequence[Declaration], engines: Mapping[str, str]) -> Problem | None:
    """An instance on a backend must name one that is there, and a session of its own."""
    taken: dict[tuple[str, str], str] = {}
    for number, one in enumerate(instances):
        key = f"instance[{number}].settings.backend"
        if one.engine not in REMOTE_ENGINES:
            if one.settings.get("backend"):
                cause = f"engine {one.engine} runs on this machine and takes no backend"
                return Problem((key,), cause)
            continue
        name, remote = one.settings.get("backend"), one.settings.get("remote", "")
        if not isinstance(name, str) or name not in engines:
            known = ", ".join(engines) or "none"
            return Problem((key,), f"it must name a declared [[backend]] ({known})")
        if engines[name] != one.engine:
            cause = f"backend {name} has engine {engines[name]}, the instance {one.engine}"
            return Problem((key,), cause)
        if not isinstance(remote, str):
            return Problem((f"instance[{number}].settings.remote",), "it must be a text")
        session = (name, remote or one.id)
        if session in taken:
            cause = f"{taken[session]} already has that session of backend {name}"
            return Problem((f"instance[{number}].settings.remote",), cause)
        taken[session] = one.id
    return None
