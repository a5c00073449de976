"""The table of alerts: condition, duration, severity and summary of each.

One table yields the Prometheus rules and what the agent raises itself.
"""

from agent.core.alerts import series as s
from agent.core.alerts.alert import Alert, AlertLimits, Because, Group, Severity, Unit
from agent.core.alerts.expression import (
    Absent,
    Age,
    Always,
    Binary,
    Fold,
    OfSession,
    Over,
    Predict,
    UnlessBackend,
)
from agent.core.alerts.source import Expression, Series

MINUTE = 60.0
HOUR = 3600.0
MIB = 1 << 20
BURNS = 14.4
"""Lost so many times as fast as may be, a month's share of failure is gone in two days."""
ONE_OUTAGE = 2
"""Reconnects of one session that a single outage may cost: the line back may drop once more."""
FLEET = 3
"""Fewer sessions than this are no fleet: one of two is half of them."""


def alert_table(limits: AlertLimits) -> tuple[Alert, ...]:
    return (
        *_application(limits),
        *_connectivity(limits),
        *_availability(limits),
        *_performance(limits),
        *_system(limits),
    )


def _is(series: Expression) -> Binary:
    return Binary(series, "==", 1.0)


def _is_not(series: Expression) -> Binary:
    return Binary(series, "==", 0.0)


def _for_itself(expression: Expression) -> Binary:
    """Without the members of an incident, for which WaFleetIncident speaks.

    Not an inhibition: that could only name the engine, and would silence a session of this
    engine that fails for a reason of its own.
    """
    return Binary(expression, "unless", _is(s.IN_INCIDENT))


def _rise(series: Series, seconds: float) -> Over:
    return Over("increase", series, seconds)


def _times(series: Series, seconds: float) -> Over:
    """How often it happened: a number to compare with another."""
    return Over("increase", series, seconds, exact=True)


OF_SESSION = Because(s.REASON, ("session",))
OF_BACKEND = Because(s.BACKEND_REASON, ("backend",))
OF_INCIDENT = Because(s.INCIDENT_REASON, ("backend", "engine"))


def _to_and_fro(series: Series) -> Expression:
    """It changed more often in ten minutes than one that comes and stays."""
    return _above(Over("changes", series, 10 * MINUTE), 2.0)


def _above(left: Expression, limit: float) -> Binary:
    return Binary(left, ">", limit)


def _application(limits: AlertLimits) -> tuple[Alert, ...]:
    group = Group.APPLICATION
    failed = Binary(_rise(s.CRYPTO_FAILED, 5 * MINUTE), "/", _rise(s.CRYPTO_OPERATIONS, 5 * MINUTE))
    return (
        Alert(
            "WaSessionCorrupted",
            group,
            Severity.CRITICAL,
            10 * MINUTE,
            OfSession(_is(s.CORRUPTED)),
            "{session} is corrupted, and no repair has cured it{because}",
            because=OF_SESSION,
        ),
        Alert(
            "WaSessionsCorruptedTogether",
            group,
            Severity.CRITICAL,
            1 * MINUTE,
            Binary(Fold("sum", s.CORRUPTED), ">=", float(limits.corrupted_together)),
            "{value} sessions are corrupted at once: look for one cause",
        ),
        Alert(
            "WaCryptoErrorRateHigh",
            group,
            Severity.WARNING,
            5 * MINUTE,
            OfSession(_above(failed, limits.crypto_error_rate)),
            "{session} cannot decrypt {value} of its messages",
            Unit.SHARE,
        ),
        Alert(
            "WaKeyRegenerationFailed",
            group,
            Severity.CRITICAL,
            0.0,
            OfSession(_above(_rise(s.REGENERATIONS_FAILED, 15 * MINUTE), 0.0)),
            "{session} could not make new keys with its contacts",
        ),
        Alert(
            "WaWatchdogRestarts",
            group,
            Severity.WARNING,
            0.0,
            OfSession(
                _above(_times(s.WATCHDOG_RESTARTS, 30 * MINUTE), float(limits.watchdog_restarts))
            ),
            "the worker of {session} hung {value} times in half an hour",
        ),
        Alert(
            "WaCircuitOpen",
            group,
            Severity.WARNING,
            5 * MINUTE,
            OfSession(_for_itself(_is(s.CIRCUIT_OPEN))),
            "the circuit of {session} is open after failures in a row{because}",
            because=OF_SESSION,
        ),
    )


def _connectivity(limits: AlertLimits) -> tuple[Alert, ...]:
    group = Group.CONNECTIVITY
    unconnected = Binary(_is(s.WANTED), "unless", _is(s.CONNECTED))
    # A session that shows its code steadily lacks only a scan; one that flickers lacks more.
    steady = Binary(_is(s.QR_REQUIRED), "unless", _to_and_fro(s.QR_REQUIRED))
    down = Binary(unconnected, "unless", steady)
    # Each session comes back once from one outage, however long that takes: that is no storm.
    coming_back = Fold("count", _above(_times(s.RECONNECTS, 15 * MINUTE), float(ONE_OUTAGE)))
    share = Binary(coming_back, "/", Fold("count", _is(s.WANTED)))
    return (
        Alert(
            "WaSessionDown",
            group,
            Severity.WARNING,
            5 * MINUTE,
            UnlessBackend(OfSession(_for_itself(down)), _is_not(s.BACKEND_UP)),
            "{session} should be connected and is not{because}",
            because=OF_SESSION,
        ),
        Alert(
            "WaSessionNeedsScan",
            group,
            Severity.WARNING,
            5 * MINUTE,
            OfSession(Binary(_is(s.WANTED), "and", _is(s.QR_REQUIRED))),
            "{session} waits for a person to scan its QR code",
        ),
        Alert(
            "WaSessionGivenUp",
            group,
            Severity.CRITICAL,
            0.0,
            OfSession(_is(s.GIVEN_UP)),
            "the agent has given {session} up; a person must look at it{because}",
            because=OF_SESSION,
        ),
        Alert(
            "WaSessionTemporaryBan",
            group,
            Severity.CRITICAL,
            0.0,
            OfSession(s.TEMPORARY_BAN),
            "WhatsApp banned the account of {session} for a time",
        ),
        Alert(
            "WaSessionClientOutdated",
            group,
            Severity.CRITICAL,
            0.0,
            OfSession(_for_itself(s.CLIENT_OUTDATED)),
            "WhatsApp no longer accepts the client of {session}",
        ),
        Alert(
            "WaSessionsEndedTogether",
            group,
            Severity.CRITICAL,
            0.0,
            Binary(
                Fold("count", _above(_rise(s.ENDED, 15 * MINUTE), 0.0)),
                ">=",
                float(limits.ended_together),
            ),
            "WhatsApp ended {value} sessions within a quarter of an hour: look for one cause",
        ),
        Alert(
            "WaSessionSilent",
            group,
            Severity.WARNING,
            0.0,
            OfSession(_is(s.SILENT)),
            "{session} is connected, and no message came for far longer than usual",
        ),
        Alert(
            "WaReconnectStorm",
            group,
            Severity.WARNING,
            0.0,
            OfSession(
                _for_itself(_above(_times(s.RECONNECTS, 10 * MINUTE), float(limits.reconnects)))
            ),
            "{session} reconnected {value} times in ten minutes",
        ),
        Alert(
            "WaFleetReconnectStorm",
            group,
            Severity.CRITICAL,
            0.0,
            Binary(
                _above(share, limits.fleet_share), "and", Binary(coming_back, ">=", float(FLEET))
            ),
            "{value} of all sessions reconnect again and again",
            Unit.SHARE,
        ),
        Alert(
            "WaFleetIncident",
            group,
            Severity.CRITICAL,
            0.0,
            _is(s.INCIDENT),
            "many sessions of {engine} fail the same way; one tries before the others{because}",
            because=OF_INCIDENT,
        ),
        Alert(
            "WaBackendLogsUnclear",
            group,
            Severity.WARNING,
            0.0,
            _is(s.BACKEND_WARNING),
            "the logs of backend {backend} are unreadable, or hold errors that name no session",
        ),
        Alert(
            "WaBackendDown",
            group,
            Severity.CRITICAL,
            2 * MINUTE,
            _is_not(s.BACKEND_UP),
            "the backend {backend} does not answer; the state of its sessions is unknown{because}",
            because=OF_BACKEND,
        ),
    )


def _availability(limits: AlertLimits) -> tuple[Alert, ...]:
    """Optional: for operators who promised a share of connected time."""
    if limits.availability <= 0:
        return ()

    def served(seconds: float) -> Expression:
        connected = Over("avg_over_time", s.CONNECTED, seconds)
        wanted = _is(s.WANTED)
        return Binary(Fold("sum", Binary(connected, "and", wanted)), "/", Fold("count", wanted))

    least = max(1 - BURNS * (1 - limits.availability), 0.01)
    # The short window ends the alert when it is over, the long one keeps blips out of it.
    hour, now = (Binary(served(seconds), "<", least) for seconds in (HOUR, 5 * MINUTE))
    return (
        Alert(
            "WaAvailabilityBurns",
            Group.CONNECTIVITY,
            Severity.CRITICAL,
            0.0,
            Binary(hour, "and", now),
            "in the last hour sessions were connected for {value} of the time",
            Unit.SHARE,
        ),
    )


def _performance(limits: AlertLimits) -> tuple[Alert, ...]:
    group = Group.PERFORMANCE
    mean = Binary(_rise(s.ANSWER_SECONDS, 5 * MINUTE), "/", _rise(s.ANSWERS, 5 * MINUTE))
    failed = Fold("sum", _rise(s.ERRORS, 5 * MINUTE))
    done = Binary(
        Fold("sum", _rise(s.ANSWERS, 5 * MINUTE)), "+", Fold("sum", _rise(s.MESSAGES, 5 * MINUTE))
    )
    # What failed was tried too: where all is down nothing else is done.
    errors = Binary(failed, "/", Binary(done, "+", failed))
    requests = Binary(_rise(s.REQUESTS_FAILED, 5 * MINUTE), "/", _rise(s.REQUESTS, 5 * MINUTE))
    memory = Binary(s.MEMORY, "/", _above(s.MEMORY_LIMIT, 0.0))
    return (
        Alert(
            "WaSessionResponseSlow",
            group,
            Severity.WARNING,
            5 * MINUTE,
            OfSession(_for_itself(_above(mean, limits.response_time))),
            "{session} takes {value} to answer",
            Unit.SECONDS,
        ),
        Alert(
            "WaErrorRateHigh",
            group,
            Severity.CRITICAL,
            5 * MINUTE,
            Binary(_above(errors, limits.error_rate), "or", _above(requests, limits.error_rate)),
            "{value} of the operations or HTTP requests fail",
            Unit.SHARE,
        ),
        Alert(
            "WaSessionMemoryHigh",
            group,
            Severity.WARNING,
            5 * MINUTE,
            OfSession(_above(memory, limits.memory_high)),
            "{session} uses {value} of the memory it may have",
            Unit.SHARE,
        ),
        Alert(
            "WaSessionMemoryCritical",
            group,
            Severity.CRITICAL,
            1 * MINUTE,
            OfSession(_above(memory, limits.memory_critical)),
            "{session} uses {value} of the memory it may have",
            Unit.SHARE,
        ),
        Alert(
            "WaSessionMemoryLeak",
            group,
            Severity.WARNING,
            0.0,
            OfSession(_leak()),
            "the memory of {session} grew by {value}B within the hour and goes on growing",
            Unit.BYTES,
        ),
    )


def _leak() -> Expression:
    """As the memory check judges: what is left at the least grew in each quarter of an hour."""
    quarter = 15 * MINUTE
    oldest, older, newer, newest = (
        Over("min_over_time", s.MEMORY, quarter, offset) for offset in (2700.0, 1800.0, 900.0, 0.0)
    )
    growth = Binary(newest, "-", oldest)
    enough = Binary(
        Binary(growth, ">", 8.0 * MIB - 1), "and", Binary(Binary(growth, "/", oldest), ">=", 0.1)
    )
    # At rest: the last quarter adds little of what an even growth would.
    goes_on = Binary(Binary(Binary(newest, "-", newer), "/", growth), ">=", 0.4 / 3)
    grows = Binary(Binary(newer, ">", older), "and", Binary(older, ">", oldest))
    return Binary(Binary(enough, "and", goes_on), "and", grows)


def _system(limits: AlertLimits) -> tuple[Alert, ...]:
    group = Group.SYSTEM
    memory = Binary(s.HOST_MEMORY_USED, "/", s.HOST_MEMORY)
    disk = Binary(s.DISK_AVAILABLE, "/", s.DISK_SIZE)
    known = Over("present_over_time", s.DISK_AVAILABLE, 15 * MINUTE, offset=45 * MINUTE)
    full = Binary(
        Binary(Predict(s.DISK_AVAILABLE, HOUR, 4 * HOUR), "<", 0.0),
        "and",
        # A few minutes of copying are no trend of an hour.
        known,
    )
    return (
        Alert(
            "WaHostMemoryHigh",
            group,
            Severity.WARNING,
            5 * MINUTE,
            _above(memory, limits.host_memory_high),
            "{value} of the machine's memory is in use",
            Unit.SHARE,
        ),
        Alert(
            "WaHostMemoryCritical",
            group,
            Severity.CRITICAL,
            1 * MINUTE,
            _above(memory, limits.host_memory_critical),
            "{value} of the machine's memory is in use",
            Unit.SHARE,
        ),
        Alert(
            "WaHostCpuHigh",
            group,
            Severity.WARNING,
            10 * MINUTE,
            _above(s.HOST_CPU, limits.host_cpu),
            "the machine's cores are {value} busy",
            Unit.SHARE,
        ),
        Alert(
            "WaDiskSpaceLow",
            group,
            Severity.WARNING,
            5 * MINUTE,
            Binary(disk, "<", limits.disk_free),
            "{value} of the disk that holds the sessions is free",
            Unit.SHARE,
        ),
        Alert(
            "WaDiskFills",
            group,
            Severity.CRITICAL,
            15 * MINUTE,
            # A nearly empty disk that something is copied to is not about to be full.
            Binary(Binary(disk, "<", 0.5), "and", full),
            "the disk that holds the sessions will be full within four hours; {value} is free",
            Unit.SHARE,
        ),
        Alert(
            "WaFileDescriptorsHigh",
            group,
            Severity.WARNING,
            5 * MINUTE,
            _above(Binary(s.OPEN_FDS, "/", s.MAX_FDS), limits.file_descriptors),
            "the agent has opened {value} of the files it may open",
            Unit.SHARE,
        ),
        Alert(
            "WaWebhookBacklog",
            group,
            Severity.WARNING,
            5 * MINUTE,
            _above(Age(s.OUTBOX_OLDEST), 15 * MINUTE),
            "a webhook has not taken an event for {value}",
            Unit.SECONDS,
        ),
        Alert(
            "WaAgentRestarting",
            group,
            Severity.WARNING,
            0.0,
            _above(Over("changes", s.STARTED, 30 * MINUTE), float(limits.agent_starts)),
            "the agent started {value} times in half an hour",
        ),
        Alert(
            "WaAgentDown",
            group,
            Severity.CRITICAL,
            2 * MINUTE,
            Binary(s.UP, "==", 0.0),
            "the agent does not answer; its sessions run on unwatched",
        ),
        Alert(
            "WaAgentAbsent",
            group,
            Severity.CRITICAL,
            5 * MINUTE,
            Absent(s.UP),
            "Prometheus does not know of any agent",
        ),
        Alert(
            "WaDeadMansSwitch",
            group,
            Severity.NONE,
            0.0,
            Always(),
            "always fires: its absence shows that alerts no longer arrive",
        ),
    )
