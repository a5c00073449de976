"""The alerts of messages: dropped before they were delivered, waiting for long, failed."""

from collections.abc import Mapping

from agent.core.alerts.alert import Alert, Group, Severity, Unit
from agent.core.alerts.expression import OfSession
from agent.core.alerts.reading import Age
from agent.core.alerts.source import Figures, Series, Vector
from agent.core.alerts.table.terms import MINUTE, above, rise
from agent.core.model import InstanceId
from agent.supervise.messages.page import KeptState
from agent.wings.messages.metrics import LOST
from agent.wings.messages.out.session.figures import MESSAGES, OLDEST, OutboxFigures
from agent.wings.messages.out.states import State

OLD = 15 * MINUTE
MANY = 5.0
"""Messages of one session that fail within half an hour before it is worth an alert."""


def _lost(own: Figures) -> Vector:
    states: Mapping[InstanceId, KeptState] = own.of_wings.get("messages", {})
    return {(("session", str(id)),): float(state.lost) for id, state in states.items()}


def _oldest(own: Figures) -> Vector:
    figures: OutboxFigures = own.of_wings.get("outbox", OutboxFigures())
    return {
        (("session", str(id)),): its.oldest_wall
        for id, its in figures.sessions.items()
        if its.oldest_wall is not None
    }


def _failed(own: Figures) -> Vector:
    figures: OutboxFigures = own.of_wings.get("outbox", OutboxFigures())
    return {
        (("session", str(id)),): float(its.ended.get(State.FAILED, 0))
        for id, its in figures.sessions.items()
    }


ALERTS = (
    Alert(
        "WaMessagesMissing",
        Group.SYSTEM,
        Severity.WARNING,
        0.0,
        OfSession(above(rise(Series(LOST.name, of_agent=_lost), 30 * MINUTE), 0.0)),
        "{session} dropped messages that were not delivered",
    ),
    Alert(
        "WaSessionOutboxOld",
        Group.SYSTEM,
        Severity.WARNING,
        5 * MINUTE,
        OfSession(above(Age(Series(OLDEST.name, of_agent=_oldest, bridged=False)), OLD)),
        "a message of {session} waits to be sent for {value}",
        Unit.SECONDS,
    ),
    Alert(
        "WaSessionSendsFail",
        Group.SYSTEM,
        Severity.WARNING,
        0.0,
        OfSession(
            above(
                rise(Series(MESSAGES.name, 'state="failed"', of_agent=_failed), 30 * MINUTE), MANY
            )
        ),
        "{session}: more than five messages failed within half an hour",
    ),
)
