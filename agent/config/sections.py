"""The tables of agent.toml that say how the agent runs; the core's policies are the other tables.

Frozen dataclasses with default, meaning and range. Durations are seconds, sizes are bytes. The
example file is made from all of them. A field without a meaning is no setting.
"""

from dataclasses import dataclass
from pathlib import Path

from agent.core.setting import setting

INSTALLED_STATE = Path("/var/lib/wa-agent")
INSTALLED_SOCKET = Path("/run/wa-agent/api.sock")
USUAL_LISTEN = "127.0.0.1:8470"
MIB = 1 << 20
HOSTS = ("auto", "systemd", "process")
LEVELS = ("debug", "info", "warn", "error")


@dataclass(frozen=True, slots=True)
class AgentSection:
    state_path: Path = setting(
        INSTALLED_STATE, "folder of the database, the lock and the sessions", restart=True
    )
    session_storage_path: str = setting(
        "", 'folder that holds one folder per instance; "" = sessions in state_path', restart=True
    )
    cache_path: str = setting(
        "", 'folder of caches, safe to delete at any time; "" = cache in state_path', restart=True
    )
    host: str = setting(
        "auto", "starts workers; auto = systemd where it booted the machine, else process",
        choices=HOSTS, restart=True,
    )  # fmt: skip
    log_level: str = setting("info", "least severe level in the log", choices=LEVELS)
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
        "repairs.log", "name of the log of repairs there, such as auto-fix-sessions.log",
        restart=True,
    )  # fmt: skip
    max_bytes: int = 10 * MIB
    """Bytes at which such a file is rotated."""
    keep: int = 5
    """Rotated files kept of each log."""
    performance_interval: float = 60.0
    """Seconds between two lines of an instance in performance.log."""


@dataclass(frozen=True, slots=True)
class ApiSection:
    listen: str = setting(
        USUAL_LISTEN, 'HOST:PORT of the HTTP interface; "" = the Unix socket only', restart=True
    )
    socket: str = setting(
        "", "path of the Unix socket;"
        ' "" = /run/wa-agent/api.sock, elsewhere api.sock in state_path', restart=True,
    )  # fmt: skip
    trust_socket: bool = setting(
        True, "true = clients of the Unix socket need no key", restart=True
    )
    trust_loopback: bool = setting(
        False, "true = clients on this machine need no key", restart=True
    )
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
    """Seconds that a client may take to send the head of a request."""
    body_timeout: float = 10.0
    """Seconds that a client may take to send the body of a request."""
    connections_per_address: int = 64
    """Simultaneous requests from one address."""
    event_queue: int = 1000
    """Events queued for one slow listener before the agent drops it."""


@dataclass(frozen=True, slots=True)
class StopSection:
    save: float = setting(20.0, "seconds for the workers to save all sessions", low=0.1)
    prepare: float = 5.0
    """Seconds for the sessions to prepare for a stop."""
    close: float = 30.0
    """Seconds for sessions and workers to close, then the agent kills them."""


@dataclass(frozen=True, slots=True)
class WorkerSection:
    watchdog: float = setting(
        20.0, "seconds of silence after which the host kills a worker", low=0.1, restart=True
    )
    stop_timeout: float = setting(
        30.0, "seconds until the host kills a stopping worker", low=0.1, restart=True
    )
    burst: int = setting(
        5, "restarts by the host within a minute before the agent decides",
        low=1, high=500, restart=True,
    )  # fmt: skip
    memory_max: int = setting(
        640 * MIB, "bytes above which the agent kills a worker that it runs without systemd"
        " (1.25 x its own memory_limit if that is more), 0 = never; a unit has MemoryMax="
        " (`wa-agent doctor`)", low=0, restart=True,
    )  # fmt: skip
    pack: int = setting(
        1, "sessions of the baileys engine that one worker with one Node holds, from each session's"
        " next start: saves memory, but no wall parts them: that worker reads the files of all"
        " sessions here, and when it ends all of its own reconnect; 1 = a worker for each session",
        low=1, high=100, restart=True,
    )  # fmt: skip
    start_timeout: float = 60.0
    """Seconds until a started worker must be ready."""
    restart_delay: float = 0.1
    """Seconds from a worker's death to its restart by the host."""
    burst_interval: float = 60.0
    """Seconds over which the host counts restarts."""


@dataclass(frozen=True, slots=True)
class SessionsSection:
    trash_days: float = setting(
        7.0, "days, counted while the agent runs, that a retired session stays in the trash; then"
        " the agent deletes its files", low=0,
    )  # fmt: skip
    on_logout: str = setting(
        "qr", "after a logout: offer a new QR, or stay disconnected", choices=("qr", "stop")
    )
    snapshots: int = setting(
        3, "snapshots kept of an instance; 0 = no automatic snapshots", low=0, high=1000
    )
    snapshot_interval: float = setting(
        3600.0, "seconds between two automatic snapshots of an instance; 0 = none", low=0
    )
    snapshot_stable: float = 300.0
    """Seconds an instance must be connected before an automatic snapshot."""
    import_packed: int = 1 << 30
    """Bytes that an imported archive may have."""
    import_unpacked: int = 4 << 30
    """Bytes that an imported session may have unpacked."""
    import_files: int = 50_000
    """Files that an imported session may have."""


@dataclass(frozen=True, slots=True)
class BackendsSection:
    """What holds for every [[backend]]."""

    discover: float = setting(
        60.0, "seconds between two reads of a backend's list of sessions", low=1
    )
    patience: float = setting(
        10.0, "seconds that a backend may be away before its sessions wait for it", low=0.1
    )
    trial: str = setting(
        "check", "what closes a backend's open circuit: its server's healthy checks, or"
        " only one session's try after breaker_pause", choices=("check", "session"),
    )  # fmt: skip
    back_rate: float = setting(
        50.0, "sessions per second that the agent checks after a backend returns", low=0.1
    )
