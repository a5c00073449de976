"""Terms that several conditions are made of."""

from agent.core.alerts import series as s
from agent.core.alerts.alert import Because
from agent.core.alerts.expression import Binary
from agent.core.alerts.reading import Over
from agent.core.alerts.source import Expression, Series

MINUTE = 60.0
HOUR = 3600.0

OF_SESSION = Because(s.REASON, ("session",))
OF_BACKEND = Because(s.BACKEND_REASON, ("backend",))
OF_INCIDENT = Because(s.INCIDENT_REASON, ("backend", "engine"))


def unconnected() -> Binary:
    """Sessions that should be connected and are not."""
    return Binary(is_(s.WANTED), "unless", is_(s.CONNECTED))


def is_(series: Expression) -> Binary:
    return Binary(series, "==", 1.0)


def is_not(series: Expression) -> Binary:
    return Binary(series, "==", 0.0)


def for_itself(expression: Expression) -> Binary:
    """Without the members of an incident, which WaFleetIncident covers. An inhibition could only
    name the engine, and would silence a session that fails for another reason."""
    return Binary(expression, "unless", is_(s.IN_INCIDENT))


def rise(series: Series, seconds: float) -> Over:
    return Over("increase", series, seconds)


def times(series: Series, seconds: float) -> Over:
    """How often it happened: a number to compare with another."""
    return Over("increase", series, seconds, exact=True)


def to_and_fro(series: Series) -> Expression:
    """It changed more often in ten minutes than a value that comes and stays."""
    return above(Over("changes", series, 10 * MINUTE), 2.0)


def above(left: Expression, limit: float) -> Binary:
    return Binary(left, ">", limit)
