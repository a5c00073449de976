"""The whole of agent.toml as one value, its tables, and what the core is given out of it; and a
Config as a commented file of them: what `config init` writes and what the example is.

Frozen dataclasses with default, meaning and range. Durations are seconds, sizes are bytes. The
tables that say how the agent runs, and [[backend]], stand here; the core's policies and the tables
that other rooms bring are the others. A field without a meaning is no setting.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache, cached_property
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
import tomli_w

from agent.core import admission, model
from agent.core.crypto import CryptoPolicy
from agent.core.crypto_patterns import CryptoPattern, own_pattern
from agent.core.health import HealthPolicy
from agent.core.memory import MIB, MemoryPolicy, limit_fault
from agent.core.reconnect import ReconnectPolicy
from agent.core.recovery.pairing import RecoveryPolicy
from agent.core.setting import HIDDEN, Fault, name_fault, path_fault, setting, settings_of
from agent.core.troubles import TroublesPolicy
from agent.engines.catalog import backend_faults, backend_settings, remote_engines
from agent.errors import ConfigError, InvalidRequest, Refused, cause_of
from agent.files import INSTALLED_SOCKET, open_plain

log = logging.getLogger(__name__)

# [[backend]]: servers of other programs whose sessions the agent watches, and their secrets. Plain
# http is allowed: most of these servers are on the same machine or in its own network.


LONGEST_SECRET = 16 * 1024
"""Characters of a key or a password; a longer file is something else."""


def url_fault(
    text: str, schemes: Sequence[str] = ("http", "https"), *, password: bool = False
) -> str:
    """Return the fault of a URL, never with the URL itself: it may hold a password."""
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
    """Return why a header cannot carry this key; "" = it can."""
    good = text.isascii() and text.isprintable() and " " not in text
    return "" if good else "it must be one line of printable ASCII without blanks"


@dataclass(frozen=True, slots=True)
class NoSettings:
    """Settings of a kind of server that has none of its own."""


@dataclass(frozen=True, slots=True)
class BackendDeclaration:
    """A [[backend]]: one server. Durations are seconds."""

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
    """The settings that only the backend's kind has."""

    def flat(self) -> dict[str, Any]:
        """Return all settings by their keys, as they stand in the table."""
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
    """Return a backend with its key and password. ConfigError says which cannot be read."""
    found: dict[str, Any] = {}
    # A key becomes a header; a password may hold whatever it likes.
    for key, fault in (("key", key_fault), ("password", lambda _text: "")):
        if path := declaration.flat().get(f"{key}_file"):
            whose = f"{key}_file of backend {declaration.name}"
            found[key] = read_secret(path, whose, f"backend.{key}_file", fault)
    if password := found.pop("password", ""):
        found["own"] = replace(declaration.own, password=password)
    return replace(declaration, **found)


def hide_secrets(table: Any) -> Any:
    """Return the row with *** for keys and passwords."""
    hidden: dict[str, Any] = {}
    for key, mark in settings_of(table):
        value = getattr(table, key.name)
        if value and (mark.secret or mark.credentials):
            hidden[key.name] = HIDDEN if mark.secret else _shown_url(value)
    if own := getattr(table, "own", None):
        hidden["own"] = hide_secrets(own)
    return replace(table, **hidden)


def _shown_url(url: str) -> str:
    """Return the URL without password and query, which may be secrets."""
    parts = urlsplit(url)
    credentials, _, host = parts.netloc.rpartition("@")
    shown = f"{HIDDEN}@{host}" if credentials else parts.netloc
    return parts._replace(netloc=shown, query="", fragment="").geturl()


def read_secret(path: str, whose: str, field: str, fault: Callable[[str], str]) -> str:
    """The file's one line. `whose` is for the error, which never shows the content; `fault` says
    what is wrong with a text."""
    try:
        with open_plain(path, links=True) as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(4 * LONGEST_SECRET + 4).decode()  # 4 bytes of a character at most
        if len(text) > LONGEST_SECRET:
            raise ValueError(f"it is longer than {LONGEST_SECRET} characters")
        text = text.removesuffix("\n").removesuffix("\r")
        if problem := fault(text) if text else "it is empty":
            raise ValueError(problem)
    except (OSError, ValueError) as error:
        undecoded = isinstance(error, UnicodeDecodeError)  # its own text shows what the file holds
        cause = "it is not UTF-8" if undecoded else cause_of(error)
        origin = error if isinstance(error, OSError) else None
        raise ConfigError(f"cannot read {path} ({whose}): {cause}", field=field) from origin
    if mode & 0o004:
        log.warning("%s is open to every user: chmod o-rwx %s", path, path)
    return text


INSTALLED_STATE = Path("/var/lib/wa-agent")
USUAL_LISTEN = "127.0.0.1:8470"


def split_address(text: str) -> tuple[str, int]:
    """Split HOST:PORT or [IPV6]:PORT; ValueError says what is wrong."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("it must be HOST:PORT, as 127.0.0.1:8470, with a port from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        return str(IPv6Address(host[1:-1])), int(port)
    if not re.fullmatch(r"[\w.-]+", host):
        raise ValueError("it must be HOST:PORT; an IPv6 address stands in [ ]")
    return host, int(port)


def is_loopback(host: str) -> bool:
    try:
        address = ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return host == "localhost"
    return bool((getattr(address, "ipv4_mapped", None) or address).is_loopback)


def _log_name_fault(name: str) -> str:
    good = re.fullmatch(r"(?!(audit|performance)\.log$)[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name)
    return "" if good else f"{name!r:.80} is not a plain file name, or another log's"


@dataclass(frozen=True, slots=True)
class AgentSection:
    state_path: Path = setting(
        INSTALLED_STATE, "folder of the database, the lock and the sessions", restart=True
    )
    session_storage_path: str = setting(
        "", 'folder that holds one folder per instance; "" = sessions in state_path', restart=True
    )
    cache_path: str = setting("", 'caches, safe to delete; "" = cache in state_path', restart=True)
    host: str = setting(
        "auto", "starts workers; auto = systemd where it booted the machine, else process",
        choices=("auto", "systemd", "process"), restart=True,
    )  # fmt: skip
    log_level: str = setting(
        "info", "least severe level in the log", choices=("debug", "info", "warn", "error")
    )
    log_format: str = setting(
        "text", "format of a log line on stderr", choices=("text", "json"), restart=True
    )


@dataclass(frozen=True, slots=True)
class LogSection:
    """Files besides stderr and the journal."""

    folder: str = setting(
        "", "folder of audit.log, performance.log and repairs.log, for a service below"
        ' /var/lib/wa-agent; "" = no such files', restart=True,
    )  # fmt: skip
    repairs_name: str = setting(
        "repairs.log", "the log of repairs there", restart=True, check=_log_name_fault
    )
    performance_interval: float = 60.0
    """Seconds between two lines of an instance in performance.log."""


@dataclass(frozen=True, slots=True)
class ApiSection:
    listen: str = setting(
        USUAL_LISTEN, 'HOST:PORT of the HTTP interface; "" = the Unix socket only',
        restart=True, check=lambda text: split_address(text or USUAL_LISTEN) and "",
    )  # fmt: skip
    socket: str = setting("", 'Unix socket; "" = api.sock in state_path, or in /run', restart=True)
    trust_socket: bool = setting(True, "clients of the Unix socket need no key", restart=True)
    trust_loopback: bool = setting(False, "clients on this machine need no key", restart=True)
    allowed_hosts: tuple[str, ...] = setting(
        (), "host names that a Host header may carry besides the loopback ones", restart=True
    )
    media_limit: int = setting(
        16 * MIB, "bytes that a file in a message may have, before base64",
        low=1024, high=64 * MIB, restart=True,
    )  # fmt: skip
    body_limit: int = MIB
    """Bytes that the body of a request may have."""
    head_timeout: float = 10.0
    """Seconds that a client may take to send the head of a connection's first request."""
    body_timeout: float = 10.0
    """Seconds that a client may take to send the body of a request."""
    event_queue: int = 1000
    """Events queued for one slow listener before the agent drops it."""

    @property
    def is_loopback(self) -> bool:
        """True if only this machine reaches `listen`."""
        return not self.listen or is_loopback(split_address(self.listen)[0])


@dataclass(frozen=True, slots=True)
class HeartbeatSection:
    url: str = setting(
        "", 'gets a GET each minute while passes complete in time', credentials=True,
        check=lambda url: "" if re.match("https?://.|$", url) else "it must begin with http(s)://",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class StopSection:
    save: float = setting(20.0, "seconds for the workers to save all sessions", low=0.1)
    prepare: float = 5.0
    """Seconds for the sessions to prepare for a stop."""
    close: float = 30.0
    """Seconds for sessions and workers to close, then the agent kills them."""


@dataclass(frozen=True, slots=True)
class WorkerSection:
    watchdog: float = setting(20.0, "seconds of silence that end a worker", low=0.1, restart=True)
    stop_timeout: float = setting(30.0, "seconds that a stop may take", low=0.1, restart=True)
    burst: int = setting(5, "restarts a minute, then the agent acts", low=1, high=500, restart=True)
    memory_max: int = setting(
        640 * MIB, "bytes above which a worker without systemd is killed, or 1.25 x its own"
        " memory_limit; 0 = never; a unit has MemoryMax=", low=0, check=limit_fault, restart=True,
    )  # fmt: skip
    pack: int = setting(
        1, "baileys sessions in one worker with one Node: saves memory, but that worker reads the"
        " files of all, and its end makes all reconnect", low=1, high=100, restart=True,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SessionsSection:
    trash_days: float = setting(
        7.0, "days, counted while the agent runs, until retired sessions are deleted", low=0
    )
    on_logout: str = setting(
        "qr", "after a logout: offer a new QR, or stay disconnected", choices=("qr", "stop")
    )
    snapshots: int = setting(3, "snapshots kept of an instance, the newest", low=0, high=1000)
    snapshot_interval: float = setting(3600.0, "seconds between two of them; 0 = none", low=0)
    snapshot_stable: float = 300.0
    """Seconds an instance must be connected before an automatic snapshot."""


Value = str | bool | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | float | list[Any]


class Declaration(msgspec.Struct, frozen=True):
    """One [[instance]]: created when it is missing, never deleted because it is absent."""

    id: model.InstanceId = model.InstanceId("")
    engine: str = ""
    enabled: bool = True
    settings: dict[str, Value | dict[str, Any]] = {}


Made = model.Instance | Declaration


@dataclass(frozen=True)
class Config:
    """The whole of agent.toml, checked. The section's name is the table's name. Without slots:
    values derived from the tables are cached, passes read them."""

    agent: AgentSection = field(default_factory=AgentSection)
    log: LogSection = field(default_factory=LogSection)
    api: ApiSection = field(default_factory=ApiSection)
    start: admission.StartPolicy = field(default_factory=admission.StartPolicy)
    heartbeat: HeartbeatSection = field(default_factory=HeartbeatSection)
    stop: StopSection = field(default_factory=StopSection)
    health: HealthPolicy = field(default_factory=HealthPolicy)
    reconnect: ReconnectPolicy = field(default_factory=ReconnectPolicy)
    recovery: RecoveryPolicy = field(default_factory=RecoveryPolicy)
    memory: MemoryPolicy = field(default_factory=MemoryPolicy)
    crypto: CryptoPolicy = field(default_factory=CryptoPolicy)
    incident: admission.IncidentPolicy = field(default_factory=admission.IncidentPolicy)
    troubles: TroublesPolicy = field(default_factory=TroublesPolicy)
    worker: WorkerSection = field(default_factory=WorkerSection)
    sessions: SessionsSection = field(default_factory=SessionsSection)
    backend: tuple[BackendDeclaration, ...] = ()
    instance: tuple[Declaration, ...] = ()
    rows: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """The rows of each table that a room brings, by the table's name."""
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """A sentence for each environment variable that no backend takes, which may well be meant for
    another program, and for each of `unmade`."""

    @cached_property
    def health_policy(self) -> HealthPolicy:
        """A proof of CONNECTED stays valid for three checks at least."""
        proof = max(self.health.proof_limit, 3 * self.health.interval)
        return replace(self.health, reconnect=self.reconnect, proof_limit=proof)

    @cached_property
    def crypto_patterns(self) -> tuple[CryptoPattern, ...]:
        return tuple(own_pattern(entry) for entry in self.crypto.patterns)

    @property
    def unmade(self) -> Iterator[str]:
        """Yield why declared instances are not made; a start goes on without them."""
        for row in self.instance:
            try:
                check_declared(self, row, self.instance)
            except (InvalidRequest, Refused) as error:
                yield str(error)

    @property
    def session_root(self) -> Path:
        return Path(self.agent.session_storage_path or self.agent.state_path / "sessions")

    @property
    def cache_root(self) -> Path:
        return Path(self.agent.cache_path or self.agent.state_path / "cache")

    @property
    def api_socket(self) -> Path:
        state = self.agent.state_path
        usual = INSTALLED_SOCKET if state == INSTALLED_STATE else state / "api.sock"
        return Path(self.api.socket or usual)


def sections() -> tuple[str, ...]:
    """Return the names of the base's tables that are written once: [NAME]."""
    rows = ("backend", "instance", "rows", "warnings")
    return tuple(table.name for table in fields(Config) if table.name not in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    name: str
    plain: Any
    """One row with its defaults."""
    head: str = ""
    """Words above the table in the example file."""
    worker: tuple[str, ...] = ()
    """The keys that each worker gets."""
    example: Any = None
    """A row that could be used, of a table that is written once for each thing of a kind:
    [[NAME]]. None: it is written once, [NAME], or not at all, which is as `plain`."""
    needed: tuple[str, ...] = ("name",)
    """The keys that each row must have."""
    faults: Callable[[Any], Iterable[Fault]] | None = None
    """Yields values of a row that cannot be true together."""
    hide: Callable[[Any], Any] = hide_secrets
    """Returns the row as it may be shown."""

    def rows(self, config: Config) -> tuple[Any, ...]:
        """Return the rows of the table; for a table that is written once the row in force."""
        usual = () if self.example else (self.plain,)
        found = getattr(config, self.name, None) or config.rows.get(self.name, usual)
        return found if isinstance(found, tuple) else (found,)


BACKEND = Table(
    name="backend",
    plain=BackendDeclaration(),
    head="""\
# Backends: servers of other programs whose sessions the agent watches and repairs. The environment
# variable BACKEND_URL sets the url of the first [[backend]], REDIS_URL the redis_url of the first
# whaticket one; the agent warns of a variable that no backend takes.
# [[backend]]
""",
    example=BackendDeclaration(
        "evo", "evolution", "http://127.0.0.1:8080", key_file="/etc/wa-agent/evo.key"
    ),
    needed=("name", "engine", "url"),
    faults=backend_faults,
)


@cache
def all_tables() -> Mapping[str, Table]:
    """Return tables by name; those that are written once come first."""
    from agent.fleet.settings import FLEET
    from agent.messages.settings import MESSAGES, PACE
    from agent.moving.programs import PROGRAMS
    from agent.webhooks.settings import WEBHOOKS

    own = (Table(name=name, plain=getattr(Config(), name)) for name in sections())
    return {it.name: it for it in (*own, MESSAGES, PACE, FLEET, BACKEND, PROGRAMS, WEBHOOKS)}


def worker_settings(config: Config) -> Mapping[str, Any]:
    """Return the settings of each worker, by table; those with their usual value are left out."""
    found: dict[str, Any] = {}
    for table in all_tables().values():
        for key in table.worker:
            if (value := getattr(table.rows(config)[0], key)) != getattr(table.plain, key):
                found.setdefault(table.name, {})[key] = value
    return found


def declared_for(config: Config, instance: model.Instance) -> Mapping[str, Any]:
    """Return the [[program]] that a session names; {} = the engine needs none, or it is absent."""
    if (row := _program(config, instance)) is None:
        return {}
    values = asdict(row).items()
    # As the file beside the session reads back.
    return {"program": {key: list(it) if isinstance(it, tuple) else it for key, it in values}}


def check_declared(config: Config, instance: Made, others: Iterable[Made] = ()) -> None:
    """InvalidRequest where it names a program that is not there; Refused where one of the others
    has its session at the same place."""
    if instance.engine != "program":
        return
    if (row := _program(config, instance)) is None:
        names = ", ".join(it.name for it in config.rows.get("program", ())) or "none"
        named = str(instance.settings.get("program", ""))
        words = f"cannot run {instance.id} as program {named!r:.60}: agent.toml has no such"
        cause = f"{words} [[program]]; declared: {names}"
        raise InvalidRequest(cause, field="settings.program", code="unknown_program")
    place = _place(config, instance)
    others = (other for other in others if other.id != instance.id)
    twins = (other.id for other in others if _place(config, other)[1:] == place[1:])
    if place and (twin := min(twins, default="")):
        why = f"cannot run {instance.id} as program {row.name}: {twin} has its session at the same"
        why += f" place, {place[0]}; give each one of its own ([[program]] {row.name})"
        raise Refused(why, field="settings.program", code="session_shared")


def _place(config: Config, instance: Made) -> tuple[str, ...]:
    """Return where the program keeps its session; () = each has a place of its own."""
    from agent.moving.programs import place_of

    return place_of(row) if (row := _program(config, instance)) else ()


def _program(config: Config, instance: Made) -> Any:
    rows = config.rows.get("program", ()) if instance.engine == "program" else ()
    return next((row for row in rows if row.name == instance.settings.get("program")), None)


# A Config as a commented file.


HEAD = """\
# Settings of wa-agent. A line that begins with "# key =" shows a default.
# Durations are seconds, sizes are bytes. `wa-agent config check` reads this file.
# The twenty settings that matter come first, then the line, then all others.
"""
LINE = """\
# ------------------------------------------------------------------------------------------------
# All other settings. One below "More of [table]" goes up to the others of that table.
"""
FIRST = {
    *("agent.state_path", "agent.session_storage_path", "agent.log_level", "log.folder"),
    *("api.listen", "api.trust_loopback", "api.allowed_hosts", "start.parallel", "start.stagger"),
    *("health.interval", "reconnect.max", "reconnect.attempts", "recovery.unpair"),
    *("memory.instance", "memory.total", "worker.pack", "sessions.on_logout"),
    *("sessions.snapshots", "messages.keep", "messages.hours"),
}

TAIL = """\
# Instances that must exist: the agent creates missing ones and deletes none that are absent here.
# [[instance]]
# id = "sales"
# engine = "sandbox"
# enabled = true
# settings = {}"""


def render_config(config: Config, only_changed: bool = True) -> str:
    """Render every key with its meaning; defaults are comments if `only_changed`."""
    first, others = [HEAD], [LINE]
    for name, table in all_tables().items():
        rows = table.rows(config)
        if not table.example:
            plain = only_changed and table.plain
            above, below = (list(_keys(rows[0], plain, name, it)) for it in (True, False))
            head = [*([table.head] if table.head else []), f"[{name}]"]
            first += [*head, *above] if above else []
            others += [*([f"# More of [{name}]:\n"] if above else head), *below] if below else []
            continue
        examples = {table.head: table.example}
        if name == "backend":
            head_of = "# More settings of a backend of engine {}:\n".format
            examples |= {head_of(kind): backend_settings(kind) for kind in sorted(remote_engines())}
        others += [_row(name, row, only_changed) for row in rows] or [
            "\n".join([head, *_keys(row, row)]).rstrip("\n") + "\n"
            for head, row in examples.items()
        ]
    for declared in map(msgspec.structs.asdict, config.instance):
        # After [[instance]], this header means the settings of that instance.
        settings = tomli_w.dumps({"instance": {"settings": declared.pop("settings")}})
        others.append(f"[[instance]]\n{tomli_w.dumps(declared)}{settings}")
    return "\n".join([*first, *others, *([] if config.instance else [TAIL])]) + "\n"


def _keys(chosen: Any, plain: Any, table: str = "", first: bool | None = None) -> Iterator[str]:
    """Each key below its meaning; what is as in `plain` is a comment. `first`: only those that
    stand above the line in `table`, or only the others."""
    for own, mark in settings_of(chosen):
        value = getattr(chosen, own.name)
        comment = "# " if plain and value == getattr(plain, own.name) else ""
        if first is None or first is (not comment or f"{table}.{own.name}" in FIRST):
            range = "" if mark.high is None else f" ({mark.low:.12g} to {mark.high:.12g})"
            range = f" ({' | '.join(mark.choices)})" if mark.choices else range
            yield f"# {mark.meaning}{range}\n{comment}{_line(own.name, value)}\n"


def _line(name: str, value: Any) -> str:
    if isinstance(value, tuple):
        # tomli_w writes a list over several lines, which a comment cannot hold.
        return f"{name} = [{', '.join(_line('x', each).removeprefix('x = ') for each in value)}]"
    # TOML has no null, which is one key's default.
    plain = False if value is None else str(value) if isinstance(value, Path) else value
    return tomli_w.dumps({name: plain}).rstrip("\n")


def _row(name: str, row: Any, only_changed: bool) -> str:
    lines = [f"[[{name}]]"]
    for holder in (row, getattr(row, "own", ())):
        for own, _ in settings_of(holder) if holder else ():
            value = getattr(holder, own.name)
            if value is not None and not (only_changed and value == own.default):
                lines.append(_line(own.name, value))
    return "\n".join(lines) + "\n"


def without_secrets(config: Config) -> Config:
    """The config to be shown: *** for keys and passwords, URLs without query, rows as their
    tables show them."""
    known, others = all_tables(), config.rows.items()
    shown = {name: tuple(map(known[name].hide, rows)) for name, rows in others}
    return replace(config, backend=tuple(map(hide_secrets, config.backend)), rows=shown)


def tables_of(config: Config) -> dict[str, Any]:
    """Return the settings as plain values, table by table; without what is derived from them."""
    tables: dict[str, Any] = {}
    for name, table in all_tables().items():
        rows = table.rows(config)
        keys = [] if table.example else [own.name for own, _ in settings_of(table.plain)]
        tables[name] = {key: getattr(rows[0], key) for key in keys} if keys else rows
    tables["instance"] = config.instance
    plain: dict[str, Any] = msgspec.to_builtins(tables, enc_hook=str)
    return plain
