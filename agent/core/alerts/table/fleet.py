"""The machines of a fleet, its database, and sessions that change their machine."""

from agent.core.alerts import series as s
from agent.core.alerts.alert import Alert, Group, Severity, Unit
from agent.core.alerts.expression import OfSession, While
from agent.core.alerts.reading import Age
from agent.core.alerts.table.terms import HOUR, MINUTE, above, is_, is_not, rise

_CERTIFICATE_DAYS = 14
_COPY_AGE = 60.0


def fleet() -> tuple[Alert, ...]:
    group = Group.CONNECTIVITY
    ends_in = -_CERTIFICATE_DAYS * 24 * HOUR
    return (
        Alert(
            "WaFleetMachineLost",
            group,
            Severity.CRITICAL,
            1 * MINUTE,
            above(s.MACHINES_LOST, 0.0),
            "{value} machines of the fleet no longer renew their lease",
        ),
        Alert(
            "WaFleetDatabaseUnreachable",
            group,
            Severity.CRITICAL,
            1 * MINUTE,
            is_not(s.FLEET_DATABASE),
            "this machine does not reach the fleet's database",
        ),
        Alert(
            "WaFleetDiskRefuses",
            group,
            Severity.CRITICAL,
            1 * MINUTE,
            is_(s.FLEET_UNWRITABLE),
            "this machine's state disk takes no writes: it renews no lease, its sessions leave it",
        ),
        Alert(
            "WaFleetTwoDatabases",
            group,
            Severity.CRITICAL,
            1 * MINUTE,
            above(s.MACHINES_ELSEWHERE, 0.0),
            "{value} machines renew in another database: no session changes its machine",
        ),
        Alert(
            "WaFleetMachinesApart",
            group,
            Severity.CRITICAL,
            1 * MINUTE,
            above(s.MACHINES_APART, 0.0),
            "{value} machines do not promise this one to wait: without the database all would stop",
        ),
        Alert(
            "WaFleetSessionsWait",
            group,
            Severity.CRITICAL,
            2 * MINUTE,
            above(s.SESSIONS_WITHOUT_MACHINE, 0.0),
            "{value} sessions wait for a machine that can run them",
        ),
        Alert(
            "WaSessionSeenTwice",
            group,
            Severity.CRITICAL,
            0.0,
            OfSession(While(above(rise(s.CONFLICTS, 15 * MINUTE), 0.0), is_(s.IN_FLEET))),
            "WhatsApp ended {session} because the same session connected a second time",
        ),
        Alert(
            "WaFleetCopiesBehind",
            group,
            Severity.WARNING,
            5 * MINUTE,
            above(s.COPY_AGE, _COPY_AGE),
            "the newest change of a session that no stored copy holds is {value} old",
            Unit.SECONDS,
        ),
        Alert(
            "WaFleetHalted",
            group,
            Severity.CRITICAL,
            0.0,
            is_(s.FLEET_HALTED),
            "no session changes its machine: the fleet's database lost records",
        ),
        Alert(
            "WaFleetCertificateEnds",
            group,
            Severity.WARNING,
            0.0,
            above(Age(s.CERTIFICATE_ENDS), ends_in),
            f"the certificate for the fleet ends within {_CERTIFICATE_DAYS} days, or has ended",
        ),
    )
