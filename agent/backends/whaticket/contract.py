"""Which requests a whaticket server understands, and the settings of a [[backend]] of that kind.

Each fork has its own routes, so each route can be set by hand.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

from agent.backends.http import cannot
from agent.config.config import BackendDeclaration, url_fault
from agent.core.setting import Fault, path_fault, setting

_ROUTE = re.compile(r"(GET|POST|PUT|PATCH|DELETE) (/[A-Za-z0-9._~/:-]*(\{id\})?[A-Za-z0-9._~/:-]*)")
_WITHOUT_ID = ("list", "login", "create")
_NEEDED = ("list", "state", "start", "login")
_FOLDER = r"/(?!.*\.\.)(?:[^{}]+/)?[^/{}]*\{id\}[^/{}]*/?"
# Without a sign between the id and the star, session 1 would be session 10 too.
_KEYS = r"[^*?\[\]\\{}]*\{id\}[^*?\[\]\\{}]*[^*?\[\]\\{}A-Za-z0-9]\*"


@dataclass(frozen=True, slots=True)
class Route:
    """A verb and a path in which `{id}` stands for the session."""

    verb: str
    path: str

    def at(self, id: str) -> str:
        return self.path.replace("{id}", quote(id, safe=""))

    def __str__(self) -> str:
        return f"{self.verb} {self.path}"


_COMMUNITY = {
    "list": "GET /whatsapp/",
    "login": "POST /auth/login",
    "state": "GET /whatsapp/{id}",
    "start": "POST /whatsappsession/{id}",
    "disconnect": "DELETE /whatsappsession/{id}",
    "new_qr": "PUT /whatsappsession/{id}",
    "logout": "DELETE /whatsappsession/{id}",
    "create": "POST /whatsapp/",
}
_SPEC = {"start": "PUT /whatsapp/{id}/start-session", "disconnect": "PUT /whatsapp/{id}/disconnect"}
PRESETS: Mapping[str, Mapping[str, str]] = {
    "spec": _COMMUNITY | _SPEC,
    "community": _COMMUNITY,
    "saas": _COMMUNITY,
    "ticketz": _COMMUNITY | {"restart": "GET /whatsappsession/refresh/{id}"},
}
"""Name of a fork → its routes. In each public fork `disconnect` logs out at WhatsApp."""


def is_safe(id: str) -> bool:
    """True if a session's id can name a file and a folder."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", id) is not None and ".." not in id


def _split(route: str) -> tuple[str, str]:
    """Return verb and path; `:id` and `:whatsappId` are read as {id}."""
    verb, _, path = route.strip().partition(" ")
    return verb.upper(), re.sub(r":(?:id|whatsappId)\b", "{id}", path.strip())


def _route_fault(name: str, route: str) -> str:
    if not route.strip() or (route.strip() == "none" and name not in _NEEDED):
        return ""
    parts = _ROUTE.fullmatch(" ".join(_split(route)))
    if parts and (parts[3] is None) == (name in _WITHOUT_ID) and ".." not in route:
        return ""
    verbs = "GET, POST, PUT, PATCH or DELETE"
    return f'it must be "VERB {_path_of(name)}" with {verbs}, not {route!r:.80}'


def _path_of(name: str) -> str:
    return "/path" if name in _WITHOUT_ID else "/path/{id}"


def _logs_fault(logs: Sequence[str]) -> str:
    for entry in logs:
        kind, _, what = entry.partition(":")
        try:
            bad = kind not in ("file", "command") or not shlex.split(what)
        except ValueError:
            bad = True
        if bad or (kind == "file" and path_fault(what)):
            wanted = "file:/PATH, with * and ? for several files, or command:PROGRAM …"
            return f"it must be {wanted}, not {entry!r:.80}"
    commands = [entry for entry in logs if entry.startswith("command:")]
    return "only one command can be run" if len(commands) > 1 else ""


def _expression_fault(text: str) -> str:
    try:
        groups = re.compile(text).groups if text else 1
    except (re.error, RecursionError, OverflowError) as error:
        return f"it is no regular expression: {error}"
    return "" if groups == 1 else f"it must have one group, it has {groups}"


def _form_fault(pattern: str, words: str, text: str) -> str:
    return "" if not text or re.fullmatch(pattern, text) else f"it must be like {words}"


def _way(name: str, does: str) -> str:
    none = "" if name in _NEEDED else ', or "none"'
    meaning = f'"VERB {_path_of(name)}" that {does}, instead of the preset\'s{none}'
    return setting("", meaning, check=partial(_route_fault, name))


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """The settings that a [[backend]] of this kind has beside the settings of each backend."""

    preset: str = setting("spec", "set of routes that the server has", choices=tuple(PRESETS))
    user: str = setting("", "e-mail address of the login")
    password: str = setting("", "password of the login", secret=True)
    password_file: str = setting(
        "", "file with the password, instead of password", check=path_fault
    )
    list_route: str = _way("list", "lists sessions")
    login_route: str = _way("login", "logs in")
    state_route: str = _way("state", "shows a session")
    start_route: str = _way("start", "starts a session")
    disconnect_route: str = _way("disconnect", "disconnects a session")
    restart_route: str = _way("restart", "reconnects a session")
    new_qr_route: str = _way("new_qr", "makes a new QR code")
    logout_route: str = _way("logout", "ends a pairing")
    create_route: str = _way("create", "creates a session")
    disconnect_keeps_pairing: bool | None = setting(
        None, "false = its disconnect route logs out; unset = as its preset says"
    )
    logs: tuple[str, ...] = setting(
        (), "its logs: file:/PATH with * and ?, or command:PROGRAM …", check=_logs_fault
    )
    log_session: str = setting(
        "",
        "regular expression whose one group is the session in a log line",
        check=_expression_fault,
    )
    auth_folder: str = setting(
        "",
        "/path/{id} of a session's auth folder",
        check=partial(_form_fault, _FOLDER, "/path/{id}, with {id} once, in its last part"),
    )
    redis_url: str = setting(
        "",
        "redis://HOST:PORT/DATABASE that holds the sessions' keys",
        credentials=True,
        check=partial(url_fault, schemes=("redis", "rediss", "unix"), password=True),
    )
    redis_pattern: str = setting(
        "sessions:{id}:*",
        "pattern of a session's keys in Redis",
        check=partial(_form_fault, _KEYS, "sessions:{id}:*, with a separator between {id} and *"),
    )

    def route(self, name: str) -> Route | None:
        """Return the route of that name; None: this server has none."""
        chosen = getattr(self, f"{name}_route").strip() or PRESETS[self.preset].get(name, "none")
        return None if chosen == "none" else Route(*_split(chosen))

    def needed(self, name: str, what: str) -> Route:
        if (route := self.route(name)) is None:
            raise cannot(what, "this server has no route for it", "not_supported")
        return route

    @property
    def hang_up(self) -> Route | None:
        """The disconnect that keeps the pairing. None: what the server calls disconnect logs out
        at WhatsApp, so no repair uses it."""
        keeps = self.disconnect_keeps_pairing
        keeps = self.preset == "spec" if keeps is None else keeps
        return self.route("disconnect") if keeps else None


def find_faults(backend: BackendDeclaration) -> Iterator[Fault]:
    """Yield the settings that cannot be true together."""
    own: BackendSettings = backend.own
    key, password = backend.key or backend.key_file, own.password or own.password_file
    if not key and not (own.user and password):
        yield ("user", "key"), "it needs user and password, or key (a ready token)"
    if bool(own.user) != bool(password):
        yield ("password", "user"), "user and password (or password_file) belong together"
