"""The alerts that the agent raises itself."""

from typing import Any

from agent.api.http.auth import Right
from agent.api.http.call import Call, Json, Route
from agent.api.http.fields import STRING, Field
from agent.core.alerts import ActiveAlert, AlertBoard, AlertState, Key, Severity
from agent.core.event_json import wall_text
from agent.metrics.runbook import link, what_to_do
from agent.wings.alerting.part import Alerting

STATES = (AlertState.FIRING, AlertState.PENDING, AlertState.RESOLVED)
WORSE = (Severity.CRITICAL, Severity.WARNING, Severity.NONE)
LIST = (Field("state", STRING, "only in this state", choices=STATES),)


async def list_alerts(call: Call) -> Json:
    board = call.parts.wing(Alerting).board()
    state = call.query.get("state")
    chosen = [alert for alert in board.alerts if state in (None, alert.state)]
    chosen.sort(key=_how_bad)
    return {
        "alerts": [show_alert(alert, board) for alert in chosen],
        "looked": wall_text(board.looked_wall),
        "alertmanager_problem": board.alertmanager_problem,
    }


def _how_bad(active: ActiveAlert) -> tuple[int, int, str, Key]:
    severity = WORSE.index(active.alert.severity)
    return STATES.index(active.state), severity, active.name, active.labels


def show_alert(active: ActiveAlert, board: AlertBoard) -> dict[str, Any]:
    return {
        "name": active.name,
        "state": active.state.value,
        "severity": active.alert.severity.value,
        "group": active.alert.group.value,
        "instance": active.session or None,
        "labels": dict(active.labels),
        "sentence": active.sentence,
        "since": wall_text(board.wall_of(active.since)),
        "fired": wall_text(board.wall_of(active.fired_at)),
        "over": wall_text(board.wall_of(active.over_at)),
        "silenced_by": board.silenced.get((active.name, active.labels)),
        "runbook": link(active.alert, board.runbooks),
        "what_to_do": what_to_do(active.alert, active.session),
    }


ROUTES = (Route("GET", "/api/alerts", Right.READ, list_alerts, "The agent's alerts", query=LIST),)
