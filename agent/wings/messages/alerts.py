"""The alert of messages that were dropped before they were delivered."""

from collections.abc import Mapping

from agent.core.alerts.alert import Alert, Group, Severity
from agent.core.alerts.expression import OfSession
from agent.core.alerts.source import Figures, Series, Vector
from agent.core.alerts.table.terms import MINUTE, above, rise
from agent.core.model import InstanceId
from agent.supervise.requests.message_page import KeptState
from agent.wings.messages.metrics import LOST


def _lost(own: Figures) -> Vector:
    states: Mapping[InstanceId, KeptState] = own.of_wings.get("messages", {})
    return {(("session", str(id)),): float(state.lost) for id, state in states.items()}


ALERTS = (
    Alert(
        "WaMessagesMissing",
        Group.SYSTEM,
        Severity.WARNING,
        0.0,
        OfSession(above(rise(Series(LOST.name, of_agent=_lost), 30 * MINUTE), 0.0)),
        "{session} dropped messages that were not delivered",
    ),
)
