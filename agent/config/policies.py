"""The settings of agent.toml that the agent judges, repairs and alerts by.

Frozen dataclasses with default, meaning and range. Durations are seconds, sizes are bytes.
"""

from dataclasses import dataclass

from agent.config.reasons import read_reasons
from agent.core.reconnect import ReasonDelay
from agent.core.setting import setting

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class HealthSection:
    interval: float = setting(30.0, "seconds between two checks of an instance", low=1)
    deep: float = setting(
        120.0, "seconds between two deep checks of an engine, such as of its page", low=1
    )
    timeout: float = setting(10.0, "seconds that one check may take", low=0.1)
    zombie_pings: int = setting(
        3, "failed pings in a row after which a session counts as a zombie", low=1
    )
    stuck: float = setting(
        30.0, "seconds in a passing state after which a session counts as stuck", low=1
    )
    proof_limit: float = setting(90.0, "seconds for which a proof of CONNECTED stays valid", low=1)
    slow: float = setting(5.0, "seconds after which an answer counts as slow", low=0.01)


@dataclass(frozen=True, slots=True)
class PhasesSection:
    process: float = setting(10.0, "seconds until a started worker answers the agent", low=0.1)
    attached: float = setting(
        30.0, "seconds until the engine is attached to its browser or socket", low=0.1
    )
    loaded: float = setting(60.0, "seconds until WhatsApp's page or handshake is loaded", low=0.1)
    injected: float = setting(30.0, "seconds until the injected script runs in the page", low=0.1)
    login: float = setting(60.0, "seconds until a QR code or a login appears", low=0.1)
    sync: float = setting(180.0, "seconds that the first sync may go without progress", low=0.1)


@dataclass(frozen=True, slots=True)
class ReconnectSection:
    base: float = setting(
        2.0, "seconds before the first attempt, where the reason has no delay of its own", low=0.1
    )
    max: float = setting(
        300.0, "seconds that a delay may reach, where the reason has no limit of its own", low=0.1
    )
    factor: float = setting(1.5, "each delay is this many times the previous one", low=1, high=10)
    jitter: float = setting(1.0, "random seconds, at most, added to each delay", low=0)
    attempts: int = setting(20, "attempts before an instance stays disconnected", low=1)
    stable: float = setting(
        300.0, "seconds a connection must last before its drop counts as the first", low=1
    )
    look_every: float = setting(
        3.0,
        "seconds, at most, between two probes of an unreachable address; 0 = no"
        " probes, each session tries by itself",
        low=0,
        high=60,
    )
    look_timeout: float = setting(3.0, "seconds that one such probe may take", low=0.1, high=60)
    breaker_failures: int = setting(
        5, "failures in a row, with the address reachable, that open the circuit", low=1
    )
    breaker_pause: float = setting(600.0, "seconds until an open circuit allows one trial", low=1)
    reasons: tuple[ReasonDelay, ...] = setting(
        (),
        "delays of single reasons (`wa-agent reasons`), also as a table of its own:"
        " [reconnect.reasons] conflict = {base = 60.0, max = 600.0}",
        parse=read_reasons,
    )


@dataclass(frozen=True, slots=True)
class RecoverySection:
    tries: int = setting(3, "tries of each step of a repair", low=1, high=20)
    first_delay: float = setting(
        2.0, "seconds between the first two tries of a step; doubles with each try", low=0.1
    )
    rounds: int = setting(
        3, "rounds through the steps of a repair before it may give up a pairing", low=1
    )
    round_pause: float = setting(1800.0, "seconds between two rounds of a repair", low=1)
    unpaired_pause: float = setting(
        30.0,
        "seconds between the first two rounds of a session without a pairing; doubles"
        " each time, up to round_pause",
        low=1,
    )
    unpair: str = setting(
        "last",
        "when a repair may end a live pairing: never, after the last round, in the first round",
        choices=("never", "last", "early"),
    )
    settle: float = setting(
        45.0, "seconds for a step on a running worker to show its effect", low=0.1
    )
    settle_start: float = setting(
        5.0, "seconds for a step that started a worker to show its effect", low=0.1
    )
    settle_keys: float = setting(
        120.0, "seconds without crypto errors after which keys count as healed", low=0.1
    )
    suspect_settle: float = setting(
        300.0, "seconds for a session that came up unpaired without a logout to come back", low=0.1
    )
    again: float = setting(
        21600.0, "seconds after which a repair that gave up starts again; 0 = never", low=0
    )


@dataclass(frozen=True, slots=True)
class MemorySection:
    measure: bool = setting(
        True, "true = measure the memory of each instance; false = no check and no action"
    )
    interval: float = setting(300.0, "seconds between two measurements", low=1)
    instance: int = setting(
        500 * MIB, "bytes that one instance may use (sandbox: 64 MiB); 0 = no limit", low=0
    )
    total: int = setting(
        2048 * MIB,
        "bytes that all instances may use together (unset, or set with machine_share:"
        " the larger of both); 0 = no limit",
        low=0,
    )
    machine_share: float = setting(
        0.8, "share of the machine's memory that all instances may use together", low=0, high=1
    )
    warn: float = setting(
        0.8, "share of its limit at which an instance frees its caches", low=0.1, high=1
    )
    critical: float = setting(
        0.95,
        "share of its limit at which the agent restarts an instance gracefully",
        low=0.1,
        high=1,
    )
    trend: float = setting(3600.0, "seconds of history that a leak check looks at", low=60)
    least_growth: float = setting(
        0.1, "growth within trend that counts as a leak, as a share", low=0, high=10
    )
    free_every: float = setting(
        600.0, "seconds between two requests to free caches, per instance", low=0
    )
    restart_every: float = setting(
        1800.0, "seconds between two restarts for memory, per instance", low=0
    )


@dataclass(frozen=True, slots=True)
class CryptoSection:
    window: float = setting(300.0, "seconds over which crypto errors are counted", low=1)
    errors: int = setting(
        5, "errors of several peers within the window that mean a corrupted session", low=1
    )
    peer_errors: int = setting(
        3, "errors of one peer within the window after which its keys are regenerated", low=1
    )
    few_peers: int = setting(
        3,
        "failing peers up to which errors mean bad keys of these peers; more mean a"
        " corrupted session",
        low=0,
    )
    share: float = setting(
        0.2, "share of messages with errors that means a corrupted session", low=0.01, high=1
    )
    least_messages: int = setting(20, "messages within the window from which share applies", low=1)
    regenerate_every: float = setting(
        600.0, "seconds between two regenerations of one peer's keys", low=1
    )
    retries: int = setting(
        3, "tries of a crypto operation before it counts as failed", low=0, high=20
    )
    retry_base: float = setting(
        1.0, "seconds before the first retry of a crypto operation; doubles with each", low=0.01
    )
    patterns: tuple[str, ...] = setting(
        (),
        'more log texts about keys: "counts: TEXT", "regenerates: TEXT" where only'
        ' new keys help, "benign: TEXT"; any case',
        restart=True,
    )
    round: float = setting(
        600.0, "seconds between two checks for sessions whose keys still fail", low=1
    )


@dataclass(frozen=True, slots=True)
class SilenceSection:
    """When the agent reports a connected session without messages."""

    least: float = setting(1800.0, "seconds; a shorter silence is always normal", low=1)
    expected: float = setting(
        20.0, "messages that the usual rate must predict for a silence to be reported", low=1
    )
    learned: float = setting(
        86400.0, "seconds that the agent observes an instance before it uses its usual rate", low=0
    )
    memory: float = setting(
        0.25,
        "weight of the newest hour in the usual rate of its hour of the week",
        low=0.01,
        high=1,
    )


@dataclass(frozen=True, slots=True)
class IncidentSection:
    window: float = setting(
        900.0, "seconds within which failures of the same kind are one incident", low=1
    )
    instances: int = setting(
        3, "instances of one engine that must fail the same way for an incident", low=2
    )
    share: float = setting(
        0.3,
        "share of an engine's instances that is enough for an incident as well",
        low=0.01,
        high=1,
    )
    noise: float = setting(
        0.01, "share of an engine's instances below which failures are no incident", low=0, high=1
    )
    outage_window: float = setting(
        60.0, "seconds within which lost connections are one network outage", low=1
    )
    outage_share: float = setting(
        0.3, "share of the connections that must be lost for an outage", low=0.01, high=1
    )
    canary_first: float = setting(
        5.0,
        "seconds until the first canary instance tries; doubles with each canary that fails",
        low=0.1,
    )
    canary_longest: float = setting(
        180.0, "seconds that the wait for the next canary may reach in an incident", low=0.1
    )
    outage_longest: float = setting(
        20.0, "seconds that the wait for the next canary may reach in a network outage", low=0.1
    )
    canary_time: float = setting(400.0, "seconds in which a canary must connect", low=1)


@dataclass(frozen=True, slots=True)
class AlertsSection:
    interval: float = setting(15.0, "seconds between two evaluations of the alerts", low=0.1)
    patience: float = setting(
        1.0, "factor on the time for which each alert's condition must hold", low=0, high=1000
    )
    off: tuple[str, ...] = setting((), "names of alerts that the agent leaves out")
    machine: str = setting("", 'name of this machine in alerts; "" = its host name')
    alertmanager: str = setting(
        "", 'http://HOST:PORT of the Alertmanager that gets the alerts; "" = none', restart=True
    )
    runbooks: str = setting(
        "",
        'address of the runbook that alerts link to; "" = the agent\'s own page,'
        " unless it listens on loopback only",
    )
    availability: float = setting(
        0.0,
        "share of the time that sessions must be connected, for WaAvailabilityBurns; 0 = off",
        low=0,
        high=0.9999,
    )
    corrupted_together: int = setting(
        3, "corrupted sessions that raise WaSessionsCorruptedTogether", low=2
    )
    ended_together: int = setting(
        3,
        "sessions banned, locked or logged out within 15 minutes that raise"
        " WaSessionsEndedTogether",
        low=2,
    )
    crypto_error_rate: float = setting(
        0.10,
        "share of a session's messages that cannot be decrypted, for WaCryptoErrorRateHigh",
        low=0.001,
        high=1,
    )
    reconnects: int = setting(
        10, "reconnects of one session in 10 minutes, for WaReconnectStorm", low=1
    )
    fleet_share: float = setting(
        0.20,
        "share of all sessions that reconnect again and again, for WaFleetReconnectStorm",
        low=0.01,
        high=1,
    )
    response_time: float = setting(
        5.0, "seconds that a session takes to answer, for WaSessionResponseSlow", low=0.01
    )
    error_rate: float = setting(
        0.10,
        "share of operations, or of HTTP requests, that fail, for WaErrorRateHigh",
        low=0.001,
        high=1,
    )
    watchdog_restarts: int = setting(
        2, "hangs of one worker in half an hour, for WaWatchdogRestarts", low=0
    )
    host_memory_high: float = setting(
        0.80, "share of the machine's memory in use, for WaHostMemoryHigh", low=0.1, high=1
    )
    host_memory_critical: float = setting(
        0.95, "share of the machine's memory in use, for WaHostMemoryCritical", low=0.1, high=1
    )
    host_cpu: float = setting(
        0.90, "share of the machine's cores in use, for WaHostCpuHigh", low=0.1, high=1
    )
    disk_free: float = setting(
        0.10, "share of the disk that is free, for WaDiskSpaceLow", low=0.001, high=1
    )
    file_descriptors: float = setting(
        0.80,
        "share of the allowed open files in use by the agent, for WaFileDescriptorsHigh",
        low=0.1,
        high=1,
    )
    agent_starts: int = setting(
        2, "starts of the agent in half an hour, for WaAgentRestarting", low=1
    )
