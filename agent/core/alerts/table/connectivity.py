"""Sessions and backends that lose their connection or do not get one."""

from agent.core.alerts import series as s
from agent.core.alerts.alert import Alert, AlertPolicy, Group, Severity, Unit
from agent.core.alerts.expression import Binary, Fold, OfSession, UnlessBackend
from agent.core.alerts.reading import Over
from agent.core.alerts.source import Expression
from agent.core.alerts.table.terms import (
    HOUR,
    MINUTE,
    OF_BACKEND,
    OF_INCIDENT,
    OF_SESSION,
    above,
    for_itself,
    is_,
    is_not,
    rise,
    times,
    to_and_fro,
    unconnected,
)

BURNS = 14.4
"""Failure so many times as fast as allowed uses up a month's share in two days."""
ONE_OUTAGE = 2
"""Reconnects of one session in a single outage: the line back may drop once more."""
FLEET = 3
"""A share of fewer sessions than this says nothing: one of two is half of them."""


def connectivity(alerts: AlertPolicy) -> tuple[Alert, ...]:
    group = Group.CONNECTIVITY
    # A session that shows its code steadily lacks only a scan; a flickering one lacks more.
    steady = Binary(is_(s.QR_REQUIRED), "unless", to_and_fro(s.QR_REQUIRED))
    down = Binary(unconnected(), "unless", steady)
    # An outage costs each session one reconnect, however long it takes: that is no storm.
    coming_back = Fold("count", above(times(s.RECONNECTS, 15 * MINUTE), float(ONE_OUTAGE)))
    share = Binary(coming_back, "/", Fold("count", is_(s.WANTED)))
    return (
        Alert(
            "WaSessionDown",
            group,
            Severity.WARNING,
            5 * MINUTE,
            UnlessBackend(OfSession(for_itself(down)), is_not(s.BACKEND_UP)),
            "{session} should be connected and is not{because}",
            because=OF_SESSION,
        ),
        Alert(
            "WaSessionNeedsScan",
            group,
            Severity.WARNING,
            5 * MINUTE,
            OfSession(Binary(is_(s.WANTED), "and", is_(s.QR_REQUIRED))),
            "{session} waits for a person to scan its QR code",
        ),
        Alert(
            "WaSessionGivenUp",
            group,
            Severity.CRITICAL,
            0.0,
            OfSession(is_(s.GIVEN_UP)),
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
            OfSession(for_itself(s.CLIENT_OUTDATED)),
            "WhatsApp no longer accepts the client of {session}",
        ),
        Alert(
            "WaSessionPasskeyRequired",
            group,
            Severity.CRITICAL,
            0.0,
            OfSession(s.PASSKEY),
            "WhatsApp asks the owner of {session} for a passkey: it can only be linked at a desk",
        ),
        Alert(
            "WaSessionPasskeySuspected",
            group,
            Severity.WARNING,
            0.0,
            OfSession(s.PASSKEY_MAYBE),
            "WhatsApp accepted the code of {session} and linked nothing; it may want a passkey",
        ),
        Alert(
            "WaSessionsEndedTogether",
            group,
            Severity.CRITICAL,
            0.0,
            Binary(
                Fold("count", above(rise(s.ENDED, 15 * MINUTE), 0.0)),
                ">=",
                float(alerts.ended_together),
            ),
            "WhatsApp ended {value} sessions within a quarter of an hour: look for one cause",
        ),
        Alert(
            "WaSessionSilent",
            group,
            Severity.WARNING,
            0.0,
            OfSession(is_(s.SILENT)),
            "{session} is connected, and no message came for far longer than usual",
        ),
        Alert(
            "WaReconnectStorm",
            group,
            Severity.WARNING,
            0.0,
            OfSession(
                for_itself(above(times(s.RECONNECTS, 10 * MINUTE), float(alerts.reconnects)))
            ),
            "{session} reconnected {value} times in ten minutes",
        ),
        Alert(
            "WaFleetReconnectStorm",
            group,
            Severity.CRITICAL,
            0.0,
            Binary(
                above(share, alerts.fleet_share), "and", Binary(coming_back, ">=", float(FLEET))
            ),
            "{value} of all sessions reconnect again and again",
            Unit.SHARE,
        ),
        Alert(
            "WaFleetIncident",
            group,
            Severity.CRITICAL,
            0.0,
            is_(s.INCIDENT),
            "many sessions of {engine} fail the same way; one tries before the others{because}",
            because=OF_INCIDENT,
        ),
        Alert(
            "WaBackendLogsUnclear",
            group,
            Severity.WARNING,
            0.0,
            is_(s.BACKEND_WARNING),
            "the logs of backend {backend} are unreadable, or hold errors that name no session",
        ),
        Alert(
            "WaBackendDown",
            group,
            Severity.CRITICAL,
            2 * MINUTE,
            is_not(s.BACKEND_UP),
            "the backend {backend} cannot be used; the state of its sessions is unknown{because}",
            because=OF_BACKEND,
        ),
    )


def availability(alerts: AlertPolicy) -> tuple[Alert, ...]:
    """Optional: for operators who promised a share of connected time."""
    if alerts.availability <= 0:
        return ()

    def served(seconds: float) -> Expression:
        connected = Over("avg_over_time", s.CONNECTED, seconds)
        wanted = is_(s.WANTED)
        return Binary(Fold("sum", Binary(connected, "and", wanted)), "/", Fold("count", wanted))

    least = max(1 - BURNS * (1 - alerts.availability), 0.01)
    # The short window ends the alert after the outage, the long one filters out blips.
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
