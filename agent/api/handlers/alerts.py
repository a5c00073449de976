"""The alerts that the agent raises itself."""

from typing import Any

from aiohttp import web

from agent.api.http.call import Call
from agent.api.http.envelope import json_answer
from agent.api.http.fields import STRING, Field
from agent.core.alerts import ActiveAlert, AlertBoard, AlertState, Key, Severity
from agent.core.event_json import wall_text
from agent.metrics.runbook import link, what_to_do

STATES = (AlertState.FIRING, AlertState.PENDING, AlertState.RESOLVED)
WORSE = (Severity.CRITICAL, Severity.WARNING, Severity.NONE)
LIST = (Field("state", STRING, "only in this state", choices=STATES),)


async def list_alerts(call: Call) -> web.Response:
    board = call.parts.alerts()
    state = call.query.get("state")
    chosen = [one for one in board.alerts if state in (None, one.state)]
    chosen.sort(key=_how_bad)
    return json_answer(
        {
            "alerts": [show_alert(one, board) for one in chosen],
            "looked": wall_text(board.looked_wall),
            "alertmanager_problem": board.alertmanager_problem,
        }
    )


def _how_bad(one: ActiveAlert) -> tuple[int, int, str, Key]:
    return STATES.index(one.state), WORSE.index(one.alert.severity), one.name, one.labels


def show_alert(one: ActiveAlert, board: AlertBoard) -> dict[str, Any]:
    return {
        "name": one.name,
        "state": one.state.value,
        "severity": one.alert.severity.value,
        "group": one.alert.group.value,
        "instance": one.session or None,
        "labels": dict(one.labels),
        "sentence": one.sentence,
        "since": wall_text(board.wall_of(one.since)),
        "fired": wall_text(board.wall_of(one.fired_at)),
        "over": wall_text(board.wall_of(one.over_at)),
        "silenced_by": board.silenced.get((one.name, one.labels)),
        "runbook": link(one.alert, board.runbooks),
        "what_to_do": what_to_do(one.alert, one.session),
    }
