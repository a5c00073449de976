"""The settings of agent.toml that the agent judges, repairs and alerts by.

Frozen dataclasses with default, meaning and range. Durations are seconds, sizes are bytes.
"""

from dataclasses import dataclass

from agent.config.reasons import read_reasons
from agent.config.setting import setting
from agent.core.reconnect import ReasonDelay

MIB = 1 << 20


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
    look_every: float = setting(
        3.0,
        "seconds, at most, between two looks at an address that cannot be reached;"
        " 0 = it is not looked at, each session tries by itself",
        low=0,
        high=60,
    )
    look_timeout: float = setting(3.0, "seconds that one such look may take", low=0.1, high=60)
    breaker_failures: int = setting(
        5, "failures in a row, of what was reached, that open the circuit", low=1
    )
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
    unpaired_pause: float = setting(
        30.0,
        "seconds between the first two rounds where no pairing can be lost; doubles each time, up"
        " to round_pause",
        low=1,
    )
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
        "bytes for all together (unset, or set with machine_share: the larger of both); 0 = no"
        " limit",
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
        180.0, "seconds that the wait for the next one may reach", low=0.1
    )
    outage_longest: float = setting(20.0, "the same in an outage of the network", low=0.1)
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
        "", 'the page that alerts link to; "" = the agent\'s own, where others can open it'
    )
    availability: float = setting(
        0.0,
        "share of the time that sessions shall be connected, for WaAvailabilityBurns; 0 = off",
        low=0,
        high=0.9999,
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
