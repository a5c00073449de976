"""The whole of agent.toml as one value, and what the core is given out of it. The tables that say
how the agent runs stand here; the core's policies are the other tables.

Frozen dataclasses with default, meaning and range. Durations are seconds, sizes are bytes. The
example file is made from all of them. A field without a meaning is no setting.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from agent.config.declaration import BackendDeclaration
from agent.core.admission import StartPolicy
from agent.core.crypto import CryptoPolicy
from agent.core.crypto_patterns import CryptoPattern, own_pattern
from agent.core.health import HealthPolicy
from agent.core.incidents import IncidentPolicy
from agent.core.memory import MemoryPolicy, limit_fault
from agent.core.model import InstanceId
from agent.core.reconnect import ReconnectPolicy
from agent.core.recovery.pairing import RecoveryPolicy
from agent.core.setting import setting
from agent.core.troubles import TroublesPolicy

INSTALLED_STATE = Path("/var/lib/wa-agent")
INSTALLED_SOCKET = Path("/run/wa-agent/api.sock")
USUAL_LISTEN = "127.0.0.1:8470"
MIB = 1 << 20


def split_address(text: str) -> tuple[str, int]:
    """HOST:PORT or [IPV6]:PORT; ValueError says what is wrong."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("it must be HOST:PORT with a port from 0 to 65535")
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
    snapshots: int = setting(3, "automatic snapshots kept of an instance", low=0, high=1000)
    snapshot_interval: float = setting(3600.0, "seconds between two of them; 0 = none", low=0)
    snapshot_stable: float = 300.0
    """Seconds an instance must be connected before an automatic snapshot."""


Value = str | bool | Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | float | list[Any]


class Declaration(Struct, frozen=True):
    """One [[instance]]: created when it is missing, never deleted because it is absent."""

    id: InstanceId = InstanceId("")
    engine: str = ""
    enabled: bool = True
    settings: dict[str, Value | dict[str, Any]] = {}


@dataclass(frozen=True)
class Config:
    """The whole of agent.toml, checked. The section's name is the table's name. Without slots:
    values derived from the tables are cached, passes read them."""

    agent: AgentSection = field(default_factory=AgentSection)
    log: LogSection = field(default_factory=LogSection)
    api: ApiSection = field(default_factory=ApiSection)
    start: StartPolicy = field(default_factory=StartPolicy)
    heartbeat: HeartbeatSection = field(default_factory=HeartbeatSection)
    stop: StopSection = field(default_factory=StopSection)
    health: HealthPolicy = field(default_factory=HealthPolicy)
    reconnect: ReconnectPolicy = field(default_factory=ReconnectPolicy)
    recovery: RecoveryPolicy = field(default_factory=RecoveryPolicy)
    memory: MemoryPolicy = field(default_factory=MemoryPolicy)
    crypto: CryptoPolicy = field(default_factory=CryptoPolicy)
    incident: IncidentPolicy = field(default_factory=IncidentPolicy)
    troubles: TroublesPolicy = field(default_factory=TroublesPolicy)
    worker: WorkerSection = field(default_factory=WorkerSection)
    sessions: SessionsSection = field(default_factory=SessionsSection)
    backend: tuple[BackendDeclaration, ...] = ()
    instance: tuple[Declaration, ...] = ()
    of_wings: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """The rows of each table that a room brings, by the table's name."""
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """A sentence for each environment variable that no backend takes. That is no error: on a
    machine it may well be meant for another program."""

    @cached_property
    def health_policy(self) -> HealthPolicy:
        """A proof of CONNECTED stays valid for three checks at least."""
        proof = max(self.health.proof_limit, 3 * self.health.interval)
        return replace(self.health, reconnect=self.reconnect, proof_limit=proof)

    @cached_property
    def crypto_patterns(self) -> tuple[CryptoPattern, ...]:
        return tuple(own_pattern(entry) for entry in self.crypto.patterns)

    def start_policy(self, cores: int) -> StartPolicy:
        return replace(self.start, parallel=self.start.parallel or 2 * max(cores, 1))

    @property
    def session_root(self) -> Path:
        chosen = self.agent.session_storage_path
        return Path(chosen) if chosen else self.agent.state_path / "sessions"

    @property
    def cache_root(self) -> Path:
        return Path(self.agent.cache_path or self.agent.state_path / "cache")

    @property
    def api_socket(self) -> Path:
        if self.api.socket:
            return Path(self.api.socket)
        if self.agent.state_path == INSTALLED_STATE:
            return INSTALLED_SOCKET
        return self.agent.state_path / "api.sock"


def sections() -> tuple[str, ...]:
    """The names of the base's tables that are written once: [NAME]."""
    rows = ("backend", "instance", "of_wings", "warnings")
    return tuple(table.name for table in fields(Config) if table.name not in rows)
