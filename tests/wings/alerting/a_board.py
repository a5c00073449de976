"""A board with an alert of every kind on it."""

from agent.config.alerts import alert_table
from agent.core.alerts import ActiveAlert, AlertBoard, AlertState, silenced

WALL = 1_800_000_000.0
NOW = 5000.0


def _one(
    name: str,
    state: AlertState,
    since: float,
    fired: float | None = None,
    over: float | None = None,
    **labels: str,
) -> ActiveAlert:
    (alert,) = [one for one in alert_table() if one.name == name]
    return ActiveAlert(alert, tuple(sorted(labels.items())), state, since, 0.97, fired, over)


def a_board() -> AlertBoard:
    firing, pending, resolved = AlertState.FIRING, AlertState.PENDING, AlertState.RESOLVED
    alerts = (
        _one("WaHostCpuHigh", resolved, NOW - 2000, NOW - 1400, NOW - 60),
        _one("WaSessionNeedsScan", pending, NOW - 30, session="shop"),
        _one("WaSessionDown", firing, NOW - 600, NOW - 300, session="sales", backend="evo"),
        _one("WaBackendDown", firing, NOW - 100, NOW - 100, backend="evo"),
        _one("WaDeadMansSwitch", firing, NOW - 4000, NOW - 4000),
    )
    return AlertBoard(
        alerts,
        silenced(alerts),
        NOW,
        WALL,
        WALL,
        "it answered 503",
        "https://wiki.example/alerts",
    )
