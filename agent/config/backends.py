"""[[backend]]: servers of other programs whose sessions the agent watches, and their secrets.

The keys are flat: the same names stand in the table, in `backend.json` and in the engine.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from agent.config.secret_file import read_secret
from agent.core.setting import HIDDEN, setting, settings_of

EVOLUTION, WHATICKET = "evolution", "whaticket"
REMOTE_ENGINES = (EVOLUTION, WHATICKET)
PRESETS = ("spec", "community", "saas", "ticketz")


@dataclass(frozen=True, slots=True)
class BackendDeclaration:
    """One server. What only one engine reads keeps its default for the other."""

    name: str = setting("", "name of the backend here: [a-z0-9][a-z0-9_-]{0,47}")
    engine: str = setting("", "kind of server", choices=REMOTE_ENGINES)
    url: str = setting("", "http://HOST:PORT or https://… of the server, without a password")
    key: str = setting("", "API key of the server, or a ready token for whaticket", secret=True)
    key_file: str = setting("", "file that holds only the key, instead of key")
    adopt: tuple[str, ...] = setting(
        (), 'names of its sessions that become instances automatically; ["*"] = all, [] = none'
    )
    timeout: float = setting(10.0, "seconds that one request may take", low=0.1, high=120)
    parallel: int = setting(50, "simultaneous requests to the server", low=1, high=1000)
    ca_file: str = setting("", 'file with the trusted certificates; "" = those of this machine')
    tls_verify: bool = setting(True, "false = accept any certificate, for tests only")
    prove: bool = setting(True, "true = a session must also answer a harmless query")

    webhook: bool = setting(False, "evolution: true = the server posts its events to this agent")
    webhook_url: str = setting(
        "", "evolution: http://HOST:PORT at which the server reaches this agent's API"
    )

    preset: str = setting("spec", "whaticket: set of routes that the server has", choices=PRESETS)
    user: str = setting("", "whaticket: e-mail address of the login")
    password: str = setting("", "whaticket: password of the login", secret=True)
    password_file: str = setting("", "whaticket: file with the password, instead of password")
    list_route: str = setting(
        "", 'whaticket: "VERB /path" that lists sessions, instead of the preset\'s'
    )
    login_route: str = setting("", 'whaticket: "VERB /path" that logs in, instead of the preset\'s')
    state_route: str = setting(
        "", 'whaticket: "VERB /path/{id}" that shows a session, instead of the preset\'s'
    )
    start_route: str = setting("", 'whaticket: "VERB /path/{id}" that starts a session')
    disconnect_route: str = setting(
        "", 'whaticket: "VERB /path/{id}" that disconnects a session, or "none"'
    )
    restart_route: str = setting(
        "", 'whaticket: "VERB /path/{id}" that reconnects a session, or "none"'
    )
    new_qr_route: str = setting(
        "", 'whaticket: "VERB /path/{id}" that makes a new QR code, or "none"'
    )
    logout_route: str = setting("", 'whaticket: "VERB /path/{id}" that ends a pairing, or "none"')
    create_route: str = setting("", 'whaticket: "VERB /path" that creates a session, or "none"')
    send_route: str = setting("", 'whaticket: "VERB /path" that sends a text, or "none"')
    disconnect_keeps_pairing: bool | None = setting(
        None, "whaticket: false = its disconnect route logs out; unset = as its preset says"
    )
    disconnect_within: float = setting(
        30.0, "whaticket: seconds until a disconnected session must be down", low=0.1, high=300
    )
    connect_within: float = setting(
        90.0, "whaticket: seconds until a started session must be connected", low=0.1, high=300
    )
    logs: tuple[str, ...] = setting(
        (),
        "whaticket: sources of its log: file:/… folder:/… journal:UNIT"
        " command:PROGRAM … pm2:/…/logs[/APP]",
    )
    log_session: str = setting(
        "", "whaticket: regular expression whose one group holds the session in a log line"
    )
    auth_folder: str = setting("", "whaticket: /path/{id} of a session's auth folder")
    redis_url: str = setting(
        "", "whaticket: redis://HOST:PORT/DATABASE that holds the sessions' keys", credentials=True
    )
    redis_pattern: str = setting(
        "sessions:{id}:*", "whaticket: pattern of a session's keys in Redis"
    )


@dataclass(frozen=True, slots=True)
class BackendSecrets:
    """Key and password of the server, from their files or the table."""

    key: str = field(default="", repr=False)
    password: str = field(default="", repr=False)


def secrets_of(declaration: BackendDeclaration) -> BackendSecrets:
    """Key and password, read from their files where files are named. ConfigError says which."""
    return BackendSecrets(
        key=declaration.key or _from_file(declaration, "key_file"),
        password=declaration.password or _from_file(declaration, "password_file"),
    )


def worker_settings(declaration: BackendDeclaration, secrets: BackendSecrets) -> dict[str, Any]:
    """The flat settings of `backend.json`: secrets in, the files that held them out."""
    found = asdict(declaration)
    found |= {"key": secrets.key, "password": secrets.password}
    found |= {name: list(value) for name, value in found.items() if isinstance(value, tuple)}
    left_out = {"key_file", "password_file"}
    return {k: v for k, v in found.items() if k not in left_out and v is not None}


def hide_secrets(declaration: BackendDeclaration) -> BackendDeclaration:
    """The declaration with *** for keys and passwords."""
    hidden: dict[str, Any] = {}
    for one, mark in settings_of(declaration):
        value = getattr(declaration, one.name)
        if value and mark.secret:
            hidden[one.name] = HIDDEN
        elif value and mark.credentials:
            hidden[one.name] = shown_url(value)
    return replace(declaration, **hidden)


def secret_fault(text: str) -> str:
    """Why a header cannot carry this key; "" = it can."""
    if not text.isascii() or not text.isprintable() or " " in text:
        return "it must be one line of printable ASCII without blanks"
    return ""


def shown_url(url: str) -> str:
    """The URL without password and query, which may be secrets."""
    scheme, mark, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    credentials, at, host = authority.rpartition("@")
    shown = f"{HIDDEN}@{host}" if at and credentials else authority
    return f"{scheme}{mark}{shown}{slash}{path.partition('?')[0]}"


def _from_file(declaration: BackendDeclaration, name: str) -> str:
    path = getattr(declaration, name)
    if not path:
        return ""
    # A key becomes a header; a password may hold whatever it likes.
    fault = secret_fault if name == "key_file" else _nothing_wrong
    return read_secret(path, f"{name} of backend {declaration.name}", f"backend.{name}", fault)


def _nothing_wrong(_text: str) -> str:
    return ""
