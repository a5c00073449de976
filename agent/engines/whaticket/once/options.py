"""The arguments of a run, and its settings from the environment."""

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.engines.whaticket.keys.removed import is_safe_name
from agent.engines.whaticket.settings import WhaticketSettings, read_settings
from agent.errors import ConfigError, InvalidRequest

USAGE = """\
One round over the sessions of a whaticket-like server: reads its log, and renews the keys of the
sessions that cannot decrypt any more. For cron, containers and CI, where wa-agent does not run;
where it does, the same words are handed to `wa-agent repair`. Needs Python 3.11 and nothing else.
  scripts/auto-fix-sessions.sh all|ID [--debug] [--dry-run]
  scripts/auto-fix-sessions.sh ID --reset [--debug] [--dry-run]   give the pairing up, whole folder
  scripts/auto-fix-sessions.sh ID --put-back NAME                 undo what BACKUP_DIR/ID/NAME holds
  scripts/auto-fix-sessions.sh --stats
A session with THRESHOLD errors within WINDOW seconds is disconnected; when it is down, the records
of the peers that fail are backed up and removed, in its files and in Redis; where the log names no
peer, its records that cannot be read (never creds or app state keys: the pairing stays). Then it is
started again and awaited. Where nothing is there to remove, nothing is interrupted, and the round
fails and says so. What a round took down is in STATE_DIR/memory.json until it is up again: a later
round brings it up.
Settings are environment variables; what has no default here may be left away:
  BACKEND_URL=http://127.0.0.1:8080    BACKEND_TOKEN (or BACKEND_TOKEN_FILE), or BACKEND_USER and
  BACKEND_PASSWORD (or BACKEND_PASSWORD_FILE)    CA_FILE
  LOG_FILE         the server's log, or one log per session: /path/{id}.log
  LOG_SESSION      a regular expression after which a log line names its session, or whose one group
                   does; without it a peer's keys, the only session, or the only one that reconnects
                   at that moment tell whose an error is
  LOG_ZONE         auto, utc, local or +HH:MM: the zone of log times that name none; auto asks when
                   the log was last written
  SESSIONS_DIR     the auth folders: /path/{id}, or the folder that holds one for each session
  REDIS_URL        redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], rediss://, unix:///path?db=0
  REDIS_PATTERN=sessions:{id}:*
  THRESHOLD=5  WINDOW=300  WAIT=60 (seconds until down, and until connected)  POLL=1  TIMEOUT=10
  TRIES=3  PAUSE=2 (seconds before a second try; doubles)
  DISCONNECT_ROUTE='PUT /whatsapp/{id}/disconnect'  must keep the pairing; most public forks' do not
  START_ROUTE='PUT /whatsapp/{id}/start-session'  STATE_ROUTE='GET /whatsapp/{id}'
  LIST_ROUTE='GET /whatsapp/'  LOGIN_ROUTE='POST /auth/login'
  AUDIT_LOG=logs/auto-fix-sessions.log    STATE_DIR: what is remembered; do not let it get lost
  BACKUP_DIR: what was removed, STATE_DIR/removed if not said; KEEP_DAYS=7
  WA_AGENT_SOCKET=/run/wa-agent/api.sock  MAX_READ=16777216 (bytes of a log that one round reads)
  PYTHON           the Python to use; else the first one that is new enough
Log lines without a time count as of the round that reads them; at the first round they do not.
Exit status: 0 done, 1 failed, 2 wrong use, 3 not found, 4 refused, 5 server or Redis not reachable,
75 another round runs, 78 configuration.
"""

_OF_SETTING: Mapping[str, str] = {
    "url": "BACKEND_URL",
    "key": "BACKEND_TOKEN",
    "user": "BACKEND_USER",
    "password": "BACKEND_PASSWORD",
    "ca_file": "CA_FILE",
    "timeout": "TIMEOUT",
    "log_session": "LOG_SESSION",
    "auth_folder": "SESSIONS_DIR",
    "redis_url": "REDIS_URL",
    "redis_pattern": "REDIS_PATTERN",
    "disconnect_route": "DISCONNECT_ROUTE",
    "start_route": "START_ROUTE",
    "state_route": "STATE_ROUTE",
    "list_route": "LIST_ROUTE",
    "login_route": "LOGIN_ROUTE",
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
    for flag, given in (("--reset", "--reset" in flags), ("--put-back", bool(put_back))):
        if given and what in ("", "all"):
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

    told: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def text(self, name: str, default: str = "") -> str:
        value = self.told.get(name) or default
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
            found = Path(file).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = (getattr(error, "strerror", None) or "it is no text").lower()
            raise ConfigError(f"cannot read {name}_FILE {file}: {why}") from error
        if any(char < " " for char in found):
            raise ConfigError(f"cannot use {name}_FILE: it has more than one line")
        return found


def read_state_dir(env: Environment) -> tuple[Path, Path]:
    """Where the audit log and what is remembered are; --stats needs no more."""
    audit = Path(env.text("AUDIT_LOG", "logs/auto-fix-sessions.log")).absolute()
    state = env.text("STATE_DIR")
    return audit, Path(state).absolute() if state else audit.parent / "auto-fix-sessions"


def read_options(env: Environment, orders: Orders) -> Options:
    """ConfigError names the variable that cannot be used."""
    audit, state = read_state_dir(env)
    threshold, window = env.whole("THRESHOLD", 5), env.whole("WINDOW", 300)
    tries = env.whole("TRIES", 3)
    for name, value in (("THRESHOLD", threshold), ("WINDOW", window), ("TRIES", tries)):
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
        keep_days=env.whole("KEEP_DAYS", 7),
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
    raw = {
        "name": "auto-fix-sessions",
        "url": env.text("BACKEND_URL", "http://127.0.0.1:8080"),
        "key": env.secret("BACKEND_TOKEN"),
        "user": env.text("BACKEND_USER"),
        "password": env.secret("BACKEND_PASSWORD"),
        "ca_file": env.text("CA_FILE"),
        "timeout": max(env.seconds("TIMEOUT", 10.0), 0.05),
        "log_session": _session_expression(env.text("LOG_SESSION")),
        "auth_folder": _folders(env.text("SESSIONS_DIR")),
        "redis_url": env.text("REDIS_URL"),
        "redis_pattern": env.text("REDIS_PATTERN", "sessions:{id}:*"),
        "disconnect_keeps_pairing": True,
        "disconnect_within": wait,
        "connect_within": wait,
    }
    for name in ("disconnect", "start", "state", "list", "login"):
        raw[f"{name}_route"] = env.text(f"{name.upper()}_ROUTE")
    try:
        return read_settings(raw)
    except ConfigError as error:
        raise ConfigError(_in_our_words(error)) from error


def _in_our_words(error: ConfigError) -> str:
    """The engine names its setting; who runs the script knows a variable."""
    if error.field == "key":
        return "cannot ask the server: set BACKEND_TOKEN, or BACKEND_USER and BACKEND_PASSWORD"
    name = _OF_SETTING.get(error.field or "", "")
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


def say_usage(write: Callable[[str], object] = sys.stdout.write) -> None:
    write(USAGE)
