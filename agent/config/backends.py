"""[[backend]]: servers of other programs whose sessions the agent watches, and their secrets. The
keys are flat: the same names stand in the table."""

from dataclasses import dataclass, field, replace
from typing import Any

from agent.config.declaration import BackendDeclaration, key_fault
from agent.config.secret_file import read_secret
from agent.core.setting import HIDDEN, settings_of
from agent.engines.catalog import backend_settings, remote_engines


def variables() -> dict[str, tuple[str, str]]:
    """Environment variable → key, and the engine whose first backend it is for ("" = any)."""
    shared = BackendDeclaration()
    keys = {mark.variable: (setting.name, "") for setting, mark in settings_of(shared)}
    for engine in sorted(remote_engines()):
        own = settings_of(backend_settings(engine))
        keys |= {mark.variable: (setting.name, engine) for setting, mark in own}
    return {variable: key for variable, key in keys.items() if variable}


@dataclass(frozen=True, slots=True)
class BackendSecrets:
    """Key and password of the server, from their files or the table."""

    key: str = field(default="", repr=False)
    password: str = field(default="", repr=False)


def secrets_of(declaration: BackendDeclaration) -> BackendSecrets:
    """Key and password, read from their files where files are named. ConfigError says which."""
    values = declaration.flat()
    return BackendSecrets(
        key=declaration.key or _from_file(declaration, "key_file"),
        password=values.get("password", "") or _from_file(declaration, "password_file"),
    )


def with_secrets(declaration: BackendDeclaration) -> BackendDeclaration:
    """With its key and password, wherever they lie. ConfigError says which cannot be read."""
    found = secrets_of(declaration)
    own = declaration.own
    if found.password:
        own = replace(own, password=found.password)
    return replace(declaration, key=found.key, own=own)


def hide_secrets(declaration: BackendDeclaration) -> BackendDeclaration:
    """The declaration with *** for keys and passwords."""
    own = declaration.own and _hidden(declaration.own)
    hidden: BackendDeclaration = replace(_hidden(declaration), own=own)
    return hidden


def _hidden(table: Any) -> Any:
    hidden: dict[str, Any] = {}
    for setting, mark in settings_of(table):
        value = getattr(table, setting.name)
        if value and mark.secret:
            hidden[setting.name] = HIDDEN
        elif value and mark.credentials:
            hidden[setting.name] = shown_url(value)
    return replace(table, **hidden)


def shown_url(url: str) -> str:
    """The URL without password and query, which may be secrets."""
    scheme, mark, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    credentials, at, host = authority.rpartition("@")
    shown = f"{HIDDEN}@{host}" if at and credentials else authority
    return f"{scheme}{mark}{shown}{slash}{path.partition('?')[0]}"


def _from_file(declaration: BackendDeclaration, name: str) -> str:
    path = declaration.flat().get(name)
    if not path:
        return ""
    # A key becomes a header; a password may hold whatever it likes.
    fault = key_fault if name == "key_file" else lambda _text: ""
    return read_secret(path, f"{name} of backend {declaration.name}", f"backend.{name}", fault)
