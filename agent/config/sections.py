"""Every setting of agent.toml: frozen dataclasses with default, meaning and range.

Durations are seconds, sizes are bytes. The example file is made from this module.
"""

from dataclasses import dataclass
from pathlib import Path

from agent.config.reasons import read_reasons
from agent.config.setting import setting
from agent.core.reconnect import ReasonDelay

INSTALLED_STATE = Path("/var/lib/wa-agent")
INSTALLED_SOCKET = Path("/run/wa-agent/api.sock")
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class AgentSection:
    state_path: Path = setting(
        INSTALLED_STATE, "folder of the database, the lock and the sessions", restart=True
    )
    session_storage_path: str = setting(
        "", 'folder that holds one folder per instance; "" = sessions in state_path', restart=True
    )
    cache_path: str = setting(
        "", 'folder that may be thrown away at any time; "" = cache in state_path', restart=True
    )
    host: str = setting(
        "auto",
        "what starts workers; auto = systemd where it booted the machine",
        choices=("auto", "systemd", "process"),
        restart=True,
    )
    log_level: str = setting(
        "info", "the least level that is logged", choices=("debug", "info", "warn", "error")
    )
    log_format: str = setting(
        "text", "how a line on stderr looks", choices=("text", "json"), restart=True
    )


@dataclass(frozen=True, slots=True)
class LogSection:
    """Files besides stderr and the journal."""

    folder: str = setting(
        "",
        "folder of audit.log, performance.log and repairs.log, for a service below"
        ' /var/lib/wa-agent; "" = none of them',
        restart=True,
    )
    repairs_name: str = setting(
        "repairs.log",
        "what the file of repairs is called there, such as auto-fix-sessions.log",
        restart=True,
    )
    max_bytes: int = setting(
        10 * MIB, "bytes of such a file before it is put aside", low=32 * 1024, restart=True
    )
    keep: int = setting(5, "older files kept of each", low=0, high=1000, restart=True)
    performance_interval: float = setting(
        60.0, "seconds between two lines of an instance in performance.log", low=1
    )


USUAL_LISTEN = "127.0.0.1:8470"


@dataclass(frozen=True, slots=True)
class ApiSection:
    listen: str = setting(
        USUAL_LISTEN, 'HOST:PORT of the HTTP interface; "" = the Unix socket only', restart=True
    )
    socket: str = setting(
        "",
        'path of the Unix socket; "" = /run/wa-agent/api.sock, elsewhere api.sock in state_path',
        restart=True,
    )
    trust_socket: bool = setting(
        True, "true = who may open the Unix socket needs no key", restart=True
    )
    trust_loopback: bool = setting(
        False, "true = whoever is on this machine needs no key", restart=True
    )
    allowed_hosts: tuple[str, ...] = setting(
        (), "names besides the loopback ones that a Host header may carry", restart=True
    )
    body_limit: int = setting(
        MIB, "bytes that a request's body may have", low=1024, high=1 << 30, restart=True
    )
    media_limit: int = setting(
        16 * MIB,
        "bytes of a file that a message may carry, before it is written as base64",
        low=1024,
        high=64 * MIB,
        restart=True,
    )
    head_timeout: float = setting(
        10.0, "seconds that a client may take for a request's head", low=0.1, restart=True
    )
    body_timeout: float = setting(
        10.0, "seconds that a client may take for a request's body", low=0.1, restart=True
    )
    connections_per_address: int = setting(
        64, "open connections from one address", low=1, restart=True
    )
    event_queue: int = setting(
        1000, "events that wait for one slow listener before it is dropped", low=1, restart=True
    )
    history: float = setting(
        3600.0,
        "seconds that the dashboard's lines of memory and messages reach back",
        low=60,
        high=86400,
        restart=True,
    )


@dataclass(frozen=True, slots=True)
class StartSection:
    stagger: float = setting(2.0, "seconds between the starts of two instances", low=0)
    spread: float = setting(1.0, "random seconds, at most, added to each start", low=0)
    parallel: int = setting(0, "starts going on at the same time; 0 = twice the cores", low=0)
    remote_parallel: int = setting(
        50, "the same for sessions on a backend, where no process of ours is started", low=1
    )
    logins: int = setting(
        30, "logins that may begin in one burst, here and on all backends together", low=1
    )
    login_every: float = setting(
        0.2, "seconds in which that budget regains one login; 0 = no budget", low=0
    )
    disk_free: int = setting(
        200 * MIB,
        "bytes that must be free where sessions lie, or no worker is started; 0 = no matter",
        low=0,
    )
    idle_load: float = setting(
        0.7, "load per core below which the next start need not wait; 0 = always wait", low=0
    )
    first_check: float = setting(
        15.0, "seconds from the agent's start to the first check", low=0, restart=True
    )


@dataclass(frozen=True, slots=True)
class StopSection:
    prepare: float = setting(5.0, "seconds for telling the sessions that a stop is near", low=0.1)
    save: float = setting(20.0, "seconds for saving all sessions", low=0.1)
    close: float = setting(30.0, "seconds for closing sessions and workers, then kill", low=0.1)


@dataclass(frozen=True, slots=True)
class HealthSection:
    interval: float = setting(30.0, "seconds between two checks of an instance", low=1)
    deep: float = setting(120.0, "seconds between two looks at an engine's insides", low=1)
    timeout: float = setting(10.0, "seconds that one check may take", low=0.1)
    zombie_pings: int = setting(3, "failed pings in a row that make a zombie", low=1)
    stuck: float = setting(30.0, "seconds in a state that should pass", low=1)
    proof_limit: float = setting(
        90.0, "seconds after which CONNECTED without a proof is not believed", low=1
    )
    slow: float = setting(5.0, "seconds after which an answer is slow", low=0.01)


@dataclass(frozen=True, slots=True)
class PhasesSection:
    process: float = setting(10.0, "seconds until a started worker can be talked to", low=0.1)
    attached: float = setting(30.0, "seconds to get hold of the browser or the socket", low=0.1)
    loaded: float = setting(60.0, "seconds until WhatsApp's page or handshake is there", low=0.1)
    injected: float = setting(30.0, "seconds until our code runs inside the page", low=0.1)
    login: float = setting(60.0, "seconds for a QR code or a login to appear", low=0.1)
    sync: float = setting(180.0, "seconds without progress of the first sync", low=0.1)


@dataclass(frozen=True, slots=True)
class ReconnectSection:
    base: float = setting(2.0, "seconds before the first attempt, for an unknown reason", low=0.1)
    max: float = setting(300.0, "seconds that a delay may reach", low=0.1)
    factor: float = setting(1.5, "each delay is this many times the one before", low=1, high=10)
    jitter: float = setting(1.0, "random seconds, at most, added to each delay", low=0)
    attempts: int = setting(20, "attempts before an instance stays disconnected", low=1)
    stable: float = setting(
        300.0, "seconds a connection must last before its drop counts as the first", low=1
    )
    breaker_failures: int = setting(5, "failures in a row that open the circuit", low=1)
    breaker_pause: float = setting(600.0, "seconds until an open circuit allows a trial", low=1)
    reasons: tuple[ReasonDelay, ...] = setting(
        (),
        "other delays for single reasons (`wa-agent reasons`), also as a table of its own:"
        " [reconnect.reasons] conflict = {base = 60.0, max = 600.0}",
        parse=read_reasons,
    )


@dataclass(frozen=True, slots=True)
class RecoverySection:
    tries: int = setting(3, "tries of each step of a repair", low=1, high=20)
    first_delay: float = setting(2.0, "seconds between two tries; doubles", low=0.1)
    rounds: int = setting(3, "rounds of the ladder before a pairing may be given up", low=1)
    round_pause: float = setting(1800.0, "seconds between two rounds", low=1)
    unpair: str = setting(
        "last",
        "whether a repair may end a live pairing: never, after every round, or in the first",
        choices=("never", "last", "early"),
    )
    settle: float = setting(
        45.0, "seconds until a step on a living worker must show its effect", low=0.1
    )
    settle_start: float = setting(5.0, "the same after a step that began a new worker", low=0.1)
    settle_keys: float = setting(
        120.0, "seconds without crypto trouble after which keys count as healed", low=0.1
    )
    suspect_settle: float = setting(
        300.0, "seconds for a session that came up unpaired without a logout", low=0.1
    )
    again: float = setting(
        21600.0, "seconds after which a repair that gave up begins again; 0 = never", low=0
    )


@dataclass(frozen=True, slots=True)
class MemorySection:
    measure: bool = setting(
        True, "measure what each instance uses; false: nothing is known or done about it"
    )
    interval: float = setting(300.0, "seconds between two measurements", low=1)
    instance: int = setting(
        500 * MIB, "bytes that one instance may use (the sandbox: 64 MiB); 0 = no limit", low=0
    )
    total: int = setting(
        2048 * MIB,
        "bytes for all together, or machine_share where it is more; what does not fit waits;"
        " 0 = no limit",
        low=0,
    )
    machine_share: float = setting(
        0.8, "share of the machine's memory for all together", low=0, high=1
    )
    warn: float = setting(0.8, "share of a limit at which caches are freed", low=0.1, high=1)
    critical: float = setting(
        0.95, "share of a limit at which it restarts gracefully", low=0.1, high=1
    )
    trend: float = setting(3600.0, "seconds over which growth is told from a plateau", low=60)
    least_growth: float = setting(
        0.1, "share by which it must grow in that time to be called a leak", low=0, high=10
    )
    free_every: float = setting(
        600.0, "seconds between two requests to free caches, of one instance", low=0
    )
    restart_every: float = setting(
        1800.0, "seconds between two restarts of one instance for its memory", low=0
    )


@dataclass(frozen=True, slots=True)
class CryptoSection:
    window: float = setting(300.0, "seconds over which crypto errors count", low=1)
    errors: int = setting(5, "errors of many peers in it that mean a corrupted session", low=1)
    peer_errors: int = setting(3, "errors of one peer that ask for new keys with it", low=1)
    few_peers: int = setting(
        3, "peers that fail, up to so many, are contacts out of step and no corruption", low=0
    )
    share: float = setting(0.2, "share of all messages that means the same", low=0.01, high=1)
    least_messages: int = setting(20, "messages below which a share says nothing", low=1)
    regenerate_every: float = setting(
        600.0, "seconds before the same peer's keys are made anew again", low=1
    )
    retries: int = setting(
        3, "tries of a crypto operation before it counts as failed", low=0, high=20
    )
    retry_base: float = setting(1.0, "seconds before the first of them; doubles", low=0.01)
    patterns: tuple[str, ...] = setting(
        (),
        'more words that mean trouble with keys: "counts: text", "regenerates: text" where only'
        ' new keys help, "benign: text"; any case',
        restart=True,
    )
    round: float = setting(
        600.0, "seconds between two rounds: who was not healed in one is repaired again", low=1
    )


@dataclass(frozen=True, slots=True)
class SilenceSection:
    """When a connected session that gets no messages is told of."""

    least: float = setting(1800.0, "seconds; no shorter silence is remarkable", low=1)
    expected: float = setting(
        20.0, "messages that should have come meanwhile, going by the usual rate", low=1
    )
    learned: float = setting(
        86400.0, "seconds an instance is watched before anything is known to be usual", low=0
    )
    memory: float = setting(
        0.25,
        "weight of the newest hour in the usual rate of its hour of the week",
        low=0.01,
        high=1,
    )


@dataclass(frozen=True, slots=True)
class IncidentSection:
    window: float = setting(900.0, "seconds in which many failures alike are one incident", low=1)
    instances: int = setting(3, "instances of one engine that must fail alike", low=2)
    share: float = setting(0.3, "or this share of them", low=0.01, high=1)
    noise: float = setting(
        0.01, "share of a large fleet that always fails alike: less is none", low=0, high=1
    )
    outage_window: float = setting(
        60.0, "seconds in which lost connections are one outage of the network", low=1
    )
    outage_share: float = setting(0.3, "share of them that must be lost", low=0.01, high=1)
    canary_first: float = setting(
        5.0, "seconds until one of them tries first; doubles with each that fails", low=0.1
    )
    canary_longest: float = setting(
        900.0, "seconds that the wait for the next one may reach", low=0.1
    )
    outage_longest: float = setting(60.0, "the same in an outage of the network", low=0.1)
    canary_time: float = setting(
        400.0, "seconds in which the one that tries must show success", low=1
    )


@dataclass(frozen=True, slots=True)
class AlertsSection:
    interval: float = setting(15.0, "seconds between two looks at the conditions", low=0.1)
    patience: float = setting(
        1.0, "each time that a condition must hold is so many times as long", low=0, high=1000
    )
    off: tuple[str, ...] = setting((), "names of alerts that are not raised")
    machine: str = setting("", 'this machine in alerts; "" = its host name')
    alertmanager: str = setting(
        "", 'http://HOST:PORT of an Alertmanager that is told; "" = none', restart=True
    )
    runbooks: str = setting(
        "", 'the page of the runbooks: an alert links to its part; "" = the agent\'s own /runbook'
    )
    corrupted_together: int = setting(3, "corrupted sessions that mean one cause", low=2)
    ended_together: int = setting(
        3, "sessions banned, locked or logged out within a quarter of an hour", low=2
    )
    crypto_error_rate: float = setting(
        0.10, "share of messages that cannot be decrypted", low=0.001, high=1
    )
    reconnects: int = setting(10, "reconnects of one session in ten minutes", low=1)
    fleet_share: float = setting(
        0.20, "share of all sessions that reconnect within five minutes", low=0.01, high=1
    )
    response_time: float = setting(5.0, "seconds that a session takes to answer", low=0.01)
    error_rate: float = setting(
        0.10, "share of operations, or of HTTP requests, that fail", low=0.001, high=1
    )
    watchdog_restarts: int = setting(2, "hangs of one worker in half an hour", low=0)
    host_memory_high: float = setting(
        0.80, "share of the machine's memory in use: warning", low=0.1, high=1
    )
    host_memory_critical: float = setting(
        0.95, "share of the machine's memory in use: critical", low=0.1, high=1
    )
    host_cpu: float = setting(0.90, "share of the machine's cores in use", low=0.1, high=1)
    disk_free: float = setting(0.10, "share of the disk that is free", low=0.001, high=1)
    file_descriptors: float = setting(
        0.80, "share of the files that the agent may open", low=0.1, high=1
    )
    agent_starts: int = setting(2, "starts of the agent in half an hour", low=1)


@dataclass(frozen=True, slots=True)
class WorkerSection:
    watchdog: float = setting(
        20.0, "seconds of silence after which a worker is killed", low=0.1, restart=True
    )
    start_timeout: float = setting(
        60.0, "seconds until a started worker must be ready", low=0.1, restart=True
    )
    stop_timeout: float = setting(
        30.0, "seconds until a stopping worker is killed", low=0.1, restart=True
    )
    restart_delay: float = setting(
        0.1, "seconds from a worker's death to its restart by the host", low=0, restart=True
    )
    burst: int = setting(
        5, "restarts by the host in burst_interval before the agent decides", low=1, restart=True
    )
    burst_interval: float = setting(60.0, "seconds over which burst counts", low=1, restart=True)
    memory_high: int = setting(
        0, "bytes above which a worker is slowed down; 0 = no limit", low=0, restart=True
    )
    memory_max: int = setting(
        640 * MIB,
        "bytes above which a worker is killed, or a quarter more than its own memory_limit;"
        " 0 = what its unit says",
        low=0,
        restart=True,
    )
    tasks_max: int = setting(
        512,
        "processes and threads of one worker (a browser has some 80); 0 = no limit",
        low=0,
        restart=True,
    )
    warm: bool = setting(
        True, "true = the process host forks workers from one warm process", restart=True
    )


@dataclass(frozen=True, slots=True)
class SessionsSection:
    trash_days: float = setting(7.0, "days that a retired session stays restorable", low=0)
    on_logout: str = setting(
        "qr",
        "after a logout: offer a new QR, or stay disconnected",
        choices=("qr", "stop"),
    )
    snapshots: int = setting(
        3, "snapshots kept of an instance; 0 = none are made by themselves", low=0, high=1000
    )
    snapshot_interval: float = setting(
        3600.0, "seconds between two snapshots of an instance; 0 = none by themselves", low=0
    )
    snapshot_stable: float = setting(
        300.0, "seconds an instance must be connected before a snapshot by itself", low=0
    )
    import_packed: int = setting(1 << 30, "bytes that an imported archive may have", low=1024)
    import_unpacked: int = setting(
        4 << 30, "bytes that an imported session may have unpacked", low=1024
    )
    import_files: int = setting(
        50_000, "files that an imported session may have", low=1, high=50_000
    )


@dataclass(frozen=True, slots=True)
class BackendsSection:
    """What holds for every [[backend]]."""

    discover: float = setting(
        60.0, "seconds between two looks at a backend's own list of sessions", low=1
    )
    patience: float = setting(
        10.0, "seconds that a backend may be away before its sessions are held", low=0.1
    )
    trial: str = setting(
        "check",
        "what closes a backend's open circuit: the first check of its server that is well, or only"
        " one session's try after breaker_pause",
        choices=("check", "session"),
    )
    back_rate: float = setting(
        50.0, "sessions per second that are looked at again when a backend is back", low=0.1
    )
