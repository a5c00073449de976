"""The settings of a whaticket-like backend, read once and checked."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.core.findings.crypto_patterns import CryptoPattern, own_pattern
from agent.engines.remote.place import Place, flag, header, read_place, text, wrong
from agent.engines.whaticket.contract import Contract, adjust
from agent.engines.whaticket.presets import PRESETS

SOURCES = ("file", "folder", "journal", "command", "pm2")
LONGEST_WAIT = 300.0


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
    name: str
    place: Place
    contract: Contract
    key: str = field(default="", repr=False)
    """A ready token, or where there is a login the token for sending."""
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    logs: tuple[Source, ...] = ()
    log_session: re.Pattern[str] | None = None
    """Its one group names the session in a line."""
    patterns: tuple[CryptoPattern, ...] = ()
    """What the agent's settings add to the lines that say something of keys."""
    auth_folder: str = ""
    redis_url: str = field(default="", repr=False)
    redis_pattern: str = "sessions:{id}:*"
    prove: bool = True
    disconnect_within: float = 30.0
    """Seconds until a session that was told to disconnect must be down."""
    connect_within: float = 90.0
    """Seconds until a session that was started must be connected."""


def read_settings(told: Mapping[str, Any]) -> WhaticketSettings:
    """ConfigError names the setting that cannot be used."""
    preset = text(told, "preset", "spec")
    if preset not in PRESETS:
        raise wrong("preset", f"unknown, known are: {', '.join(PRESETS)}")
    user, key = text(told, "user"), header(told, "key")
    password = _secret(told, "password")
    if user and not password:
        raise wrong("password", "missing, and a user is given")
    if not user and not key:
        raise wrong("key", "neither a key nor a user with a password is given")
    return WhaticketSettings(
        name=text(told, "name"),
        place=read_place(told),
        contract=adjust(PRESETS[preset], told),
        key=key,
        user=user,
        password=password,
        logs=_sources(told.get("logs", [])),
        log_session=_expression(text(told, "log_session")),
        patterns=_patterns(told.get("crypto_patterns", [])),
        auth_folder=_auth_folder(text(told, "auth_folder")),
        redis_url=_redis_url(text(told, "redis_url")),
        redis_pattern=_redis_pattern(text(told, "redis_pattern") or "sessions:{id}:*"),
        prove=flag(told, "prove", True),
        disconnect_within=_seconds(told, "disconnect_within", 30.0),
        connect_within=_seconds(told, "connect_within", 90.0),
    )


def _secret(told: Mapping[str, Any], key: str) -> str:
    """As it is, or from the file that is named."""
    if given := text(told, key):
        return given
    if not (file := text(told, f"{key}_file")):
        return ""
    try:
        return Path(file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise wrong(f"{key}_file", f"{file}: {why}") from error


def _sources(told: object) -> tuple[Source, ...]:
    if not isinstance(told, list | tuple) or not all(isinstance(each, str) for each in told):
        raise wrong("logs", "not a list of texts")
    found = []
    for each in told:
        kind, _, what = each.partition(":")
        if kind not in SOURCES or not what.strip():
            raise wrong("logs", f"a source begins with one of {': '.join(SOURCES)}:")
        if kind in ("file", "folder", "pm2") and not what.startswith("/"):
            raise wrong("logs", f"the path of a {kind} begins with /")
        if kind == "journal" and not re.fullmatch(r"[A-Za-z0-9:_.\\@-]{1,255}", what):
            raise wrong("logs", "a journal is named by its unit")
        if kind == "command" and "\0" in what:
            raise wrong("logs", "a command holds a zero byte")
        found.append(Source(kind, what.strip()))
    return tuple(found)


def _patterns(told: object) -> tuple[CryptoPattern, ...]:
    if not isinstance(told, list | tuple) or not all(isinstance(each, str) for each in told):
        raise wrong("crypto_patterns", "not a list of texts")
    try:
        return tuple(own_pattern(each) for each in told)
    except ValueError as error:
        raise wrong("crypto_patterns", str(error)) from error


def _expression(told: str) -> re.Pattern[str] | None:
    if not told:
        return None
    try:
        expression = re.compile(told)
    except re.error as error:
        raise wrong("log_session", f"no regular expression: {error}") from error
    if expression.groups != 1:
        raise wrong("log_session", "it needs one group, which names the session")
    return expression


def _auth_folder(told: str) -> str:
    if not told:
        return ""
    head, _, tail = told.rpartition("{id}")
    if not told.startswith("/") or not head or "/" in tail.rstrip("/") or "{id}" in head:
        raise wrong("auth_folder", "it is like /path/{id}, with {id} in its last part")
    return told.rstrip("/")


def _redis_url(told: str) -> str:
    if told and not told.startswith(("redis://", "rediss://", "unix://")):
        raise wrong("redis_url", "it begins with redis://, rediss:// or unix://")
    return told


def _redis_pattern(told: str) -> str:
    # Without a sign between the id and the star, session 1 would take the keys of session 12.
    if not re.fullmatch(r"[^*?\[\]\\{}]*\{id\}[^*?\[\]\\{}]*[^*?\[\]\\{}A-Za-z0-9]\*", told):
        raise wrong(
            "redis_pattern", "it is like sessions:{id}:*, with a separator between {id} and *"
        )
    return told


def _seconds(told: Mapping[str, Any], key: str, default: float) -> float:
    value = told.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(key, "not a number")
    if not 0.05 <= value <= LONGEST_WAIT:
        raise wrong(key, f"not between 0.05 and {LONGEST_WAIT:g}")
    return float(value)
