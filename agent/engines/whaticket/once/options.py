"""The arguments of a run, and its settings from the environment."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.engines.whaticket.keys.removed import is_safe_name
from agent.engines.whaticket.settings import WhaticketSettings, read_settings
from agent.errors import ConfigError, InvalidRequest

_TEXTS: Mapping[str, str] = {
    "url": "BACKEND_URL",
    "user": "BACKEND_USER",
    "ca_file": "CA_FILE",
    "redis_url": "REDIS_URL",
    "redis_pattern": "REDIS_PATTERN",
    "disconnect_route": "DISCONNECT_ROUTE",
    "start_route": "START_ROUTE",
    "state_route": "STATE_ROUTE",
    "list_route": "LIST_ROUTE",
    "login_route": "LOGIN_ROUTE",
}
"""Settings of the engine that are taken as they are: their variables."""
_OTHERS: Mapping[str, str] = {
    "password": "BACKEND_PASSWORD",
    "timeout": "TIMEOUT",
    "log_session": "LOG_SESSION",
    "auth_folder": "SESSIONS_DIR",
    "disconnect_within": "WAIT",
    "connect_within": "WAIT",
}
_CLASSES = {"alpha": "A-Za-z", "digit": "0-9", "alnum": "A-Za-z0-9", "space": r"\s", "upper": "A-Z"}
"""What an awk expression may hold and Python's do not."""
_ID = "([A-Za-z0-9_][A-Za-z0-9_.-]*)"


class BadUse(InvalidRequest):
    """The command line cannot be understood."""


@dataclass(frozen=True, slots=True)
class Orders:
    """The arguments."""

    what: str = ""
    """all, a session's id, or "" for --stats alone."""
    debug: bool = False
    dry_run: bool = False
    reset: bool = False
    stats: bool = False
    put_back: str = ""
    help: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """The environment. Seconds."""

    backend: WhaticketSettings
    log_file: str
    audit_log: Path
    state_dir: Path
    backup_dir: Path
    keep_days: int = 7
    threshold: int = 5
    window: float = 300.0
    tries: int = 3
    pause: float = 2.0
    poll: float = 1.0
    max_read: int = 16 << 20
    log_zone: str = "auto"

    @property
    def log_path(self) -> Path:
        return Path(self.log_file).absolute()


def read_orders(argv: Sequence[str]) -> Orders:
    """BadUse says what cannot be understood."""
    flags, words, put_back = set(), [], ""
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--put-back":
            if not rest:
                raise BadUse("--put-back needs the name of a backup; see --help")
            put_back = rest.pop(0)
        elif word in ("--debug", "--dry-run", "--reset", "--stats", "--help", "-h"):
            flags.add(word)
        elif word.startswith("-"):
            raise BadUse(f"cannot understand {word!r:.80}; see --help")
        else:
            words.append(word)
    if flags & {"--help", "-h"}:
        return Orders(help=True)
    if len(words) > 1:
        raise BadUse(
            f"cannot repair {words[0]!r:.60} and {words[1]!r:.60} in one round; see --help"
        )
    what = words[0] if words else ""
    if what and not is_safe_name(what):
        raise BadUse(f"cannot use {what!r:.60} as a session's id")
    if not what and "--stats" not in flags:
        raise BadUse("say all, a session, or --stats; see --help")
    for flag, is_given in (("--reset", "--reset" in flags), ("--put-back", bool(put_back))):
        if is_given and what in ("", "all"):
            raise BadUse(f"{flag} changes a pairing: name the one session")
    return Orders(
        what,
        debug="--debug" in flags,
        dry_run="--dry-run" in flags,
        reset="--reset" in flags,
        stats="--stats" in flags,
        put_back=put_back,
    )


@dataclass(slots=True)
class Environment:
    """Where the settings are taken from; each is checked as it is taken."""

    variables: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def text(self, name: str, default: str = "") -> str:
        value = self.variables.get(name) or default
        if any(char < " " or char == "\x7f" for char in value):
            raise ConfigError(f"cannot use {name}: it has more than one line, or control signs")
        return value

    def whole(self, name: str, default: int) -> int:
        value = self.text(name, str(default))
        if not (value.isascii() and value.isdigit()):
            raise ConfigError(f"cannot use {name}={value!r:.40}: a whole number is needed")
        return int(value)

    def seconds(self, name: str, default: float) -> float:
        value = self.text(name, f"{default:g}")
        if not re.fullmatch(r"\d{1,7}(?:\.\d{1,3})?", value):
            raise ConfigError(f"cannot use {name}={value!r:.40}: a number of seconds is needed")
        return float(value)

    def secret(self, name: str) -> str:
        """Out of the file that NAME_FILE names, or as it is."""
        if not (file := self.text(f"{name}_FILE")):
            return self.text(name)
        try:
            secret = Path(file).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = (getattr(error, "strerror", None) or "it is no text").lower()
            raise ConfigError(f"cannot read {name}_FILE {file}: {why}") from error
        if any(char < " " for char in secret):
            raise ConfigError(f"cannot use {name}_FILE: it has more than one line")
        return secret


def read_state_dir(env: Environment) -> tuple[Path, Path]:
    """Where the audit log and what is remembered are; --stats needs no more."""
    audit = Path(env.text("AUDIT_LOG", "logs/auto-fix-sessions.log")).absolute()
    state = env.text("STATE_DIR")
    return audit, Path(state).absolute() if state else audit.parent / "auto-fix-sessions"


def read_options(env: Environment, orders: Orders) -> Options:
    """ConfigError names the variable that cannot be used."""
    audit, state = read_state_dir(env)
    threshold, window = env.whole("THRESHOLD", 5), env.whole("WINDOW", 300)
    tries, keep_days = env.whole("TRIES", 3), env.whole("KEEP_DAYS", 7)
    for name, value in (
        ("THRESHOLD", threshold),
        ("WINDOW", window),
        ("TRIES", tries),
        ("KEEP_DAYS", keep_days),
    ):
        if value < 1:
            raise ConfigError(f"cannot use {name}=0: it must be more than 0")
    log_file = env.text("LOG_FILE")
    if not log_file and not (orders.reset or orders.put_back):
        raise ConfigError("LOG_FILE is not set: where are the server's errors?")
    backup = env.text("BACKUP_DIR")
    return Options(
        _backend(env),
        log_file,
        audit,
        state,
        Path(backup).absolute() if backup else state / "removed",
        keep_days=keep_days,
        threshold=threshold,
        window=float(window),
        tries=tries,
        pause=env.seconds("PAUSE", 2.0),
        poll=max(env.seconds("POLL", 1.0), 0.05),
        max_read=max(env.whole("MAX_READ", 16 << 20), 4096),
        log_zone=_zone(env.text("LOG_ZONE", "auto")),
    )


def _backend(env: Environment) -> WhaticketSettings:
    wait = max(env.seconds("WAIT", 60.0), 0.05)
    given = {setting: env.text(variable) for setting, variable in _TEXTS.items()}
    raw = {
        "name": "auto-fix-sessions",
        "url": "http://127.0.0.1:8080",
        "key": env.secret("BACKEND_TOKEN"),
        "password": env.secret("BACKEND_PASSWORD"),
        "timeout": max(env.seconds("TIMEOUT", 10.0), 0.05),
        "log_session": _session_expression(env.text("LOG_SESSION")),
        "auth_folder": _folders(env.text("SESSIONS_DIR")),
        "disconnect_keeps_pairing": True,
        "disconnect_within": wait,
        "connect_within": wait,
        **{setting: value for setting, value in given.items() if value},
    }
    try:
        return read_settings(raw)
    except ConfigError as error:
        raise ConfigError(_in_our_words(error)) from error


def _in_our_words(error: ConfigError) -> str:
    """The engine names its setting; who runs the script knows a variable."""
    if error.field == "key":
        return "cannot ask the server: set BACKEND_TOKEN, or BACKEND_USER and BACKEND_PASSWORD"
    name = {**_TEXTS, **_OTHERS}.get(error.field or "", "")
    _, _, why = str(error).partition(": ")
    return f"cannot use {name}: {why}" if name else str(error)


def _session_expression(raw: str) -> str:
    if not raw:
        return ""
    for name, signs in _CLASSES.items():
        raw = raw.replace(f"[:{name}:]", signs)
    try:
        groups = re.compile(raw).groups
    except re.error as error:
        raise ConfigError(
            f"cannot use LOG_SESSION={raw!r:.80}: no regular expression: {error}"
        ) from error
    return raw if groups == 1 else f"(?:{raw}){_ID}" if groups == 0 else raw


def _folders(raw: str) -> str:
    if not raw:
        return ""
    path = str(Path(raw).absolute())
    return path if "{id}" in path else f"{path}/{{id}}"


def _zone(raw: str) -> str:
    if raw.lower() in ("auto", "utc", "local"):
        return raw.lower()
    if re.fullmatch(r"[+-][01]\d:?[0-5]\d", raw):
        return raw
    raise ConfigError(f"cannot use LOG_ZONE={raw!r:.40}: auto, utc, local or +HH:MM is needed")
