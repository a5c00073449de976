"""A dashboard for Grafana over the same metrics; a test asks whether each of them exists."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_ON = 'machine=~"$machine",session=~"$session"'
_MACHINE = 'machine=~"$machine"'


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    queries: tuple[tuple[str, str], ...]
    """PromQL and legend."""
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    stacked: bool = False
    thresholds: tuple[tuple[float, str], ...] = ()
    """From each value on its colour; below the first one it is green."""


ROWS: Mapping[str, Sequence[Panel]] = {
    "Overview": (
        Panel(
            "Connected of wanted",
            (
                (f'sum(wa_session_status{{status="connected",{_ON}}})', "connected"),
                (f"sum(wa_session_wanted{{{_ON}}})", "wanted"),
            ),
            kind="stat",
            width=6,
        ),
        Panel(
            "Waiting for a scan",
            ((f'sum(wa_session_status{{status="qr_required",{_ON}}})', "to scan"),),
            kind="stat",
            width=6,
            thresholds=((1, "orange"),),
        ),
        Panel(
            "Given up",
            ((f"sum(wa_session_given_up{{{_ON}}})", "given up"),),
            kind="stat",
            width=6,
            thresholds=((1, "red"),),
        ),
        Panel(
            "Incidents",
            ((f"sum(wa_agent_incident_active{{{_MACHINE}}})", "incidents"),),
            kind="stat",
            width=6,
            thresholds=((1, "red"),),
        ),
        Panel(
            "Sessions by status",
            ((f"sum by (status) (wa_agent_sessions{{{_MACHINE}}})", "{{status}}"),),
            width=12,
            stacked=True,
        ),
        Panel(
            "Sessions by verdict",
            ((f"sum by (verdict) (wa_session_verdict{{{_ON}}})", "{{verdict}}"),),
            width=12,
            stacked=True,
        ),
    ),
    "Served": (
        Panel(
            "Minutes served, of those wanted",
            (
                (
                    f'sum(avg_over_time(wa_session_status{{status="connected",{_ON}}}[5m])'
                    f" and on (instance, session) wa_session_wanted{{{_ON}}} == 1)"
                    f" / sum(wa_session_wanted{{{_ON}}})",
                    "five minutes",
                ),
                (
                    f'sum(avg_over_time(wa_session_status{{status="connected",{_ON}}}[1d])'
                    f" and on (instance, session) wa_session_wanted{{{_ON}}} == 1)"
                    f" / sum(wa_session_wanted{{{_ON}}})",
                    "a day",
                ),
            ),
            unit="percentunit",
            width=12,
            thresholds=((0.0, "red"), (0.95, "orange"), (0.99, "green")),
        ),
        Panel(
            "Time to reconnect, to answer, to acknowledge, to repair: 9 of 10 are faster",
            tuple(
                (
                    "histogram_quantile(0.9, sum by (le)"
                    f" (rate(wa_agent_session_{what}_seconds_bucket{{{_MACHINE}}}[30m])))",
                    what,
                )
                for what in ("reconnect", "response", "acknowledgement", "repair")
            ),
            unit="s",
            width=12,
        ),
        Panel(
            "The worst of the last day",
            (
                (
                    "topk(20, sum by (machine, session) (increase("
                    f'wa_session_status_seconds_total{{status!="connected",{_ON}}}[1d])'
                    f" and on (instance, session) wa_session_wanted{{{_ON}}} == 1))",
                    "seconds down",
                ),
                (
                    "topk(20, sum by (machine, session)"
                    f" (increase(wa_session_reconnects_total{{{_ON}}}[1d])) > 0)",
                    "reconnects",
                ),
                (
                    "topk(20, sum by (machine, session)"
                    f" (increase(wa_session_restarts_total{{{_ON}}}[1d])) > 0)",
                    "restarts",
                ),
                (
                    "topk(20, sum by (machine, session)"
                    f" (increase(wa_session_errors_total{{{_ON}}}[1d])) > 0)",
                    "errors",
                ),
            ),
            kind="table",
            width=24,
        ),
    ),
    "Connections": (
        Panel(
            "Reconnects in 10 minutes",
            (
                (
                    "sum by (machine, session)"
                    f" (increase(wa_session_reconnects_total{{{_ON}}}[10m])) > 0",
                    "{{machine}} {{session}}",
                ),
            ),
        ),
        Panel(
            "Age of the proof",
            ((f"time() - wa_session_proof_timestamp_seconds{{{_ON}}}", "{{machine}} {{session}}"),),
            unit="s",
        ),
        Panel(
            "Connected for",
            ((f"wa_session_uptime_seconds{{{_ON}}}", "{{machine}} {{session}}"),),
            unit="s",
        ),
        Panel(
            "Open circuits",
            ((f'wa_session_circuit{{state="open",{_ON}}} == 1', "{{machine}} {{session}}"),),
        ),
        Panel(
            "Restarts of workers in an hour",
            (
                (
                    f"sum by (reason) (increase(wa_session_restarts_total{{{_ON}}}[1h])) > 0",
                    "{{reason}}",
                ),
            ),
        ),
        Panel(
            "Errors in 10 minutes",
            (
                (
                    f"sum by (kind) (increase(wa_session_errors_total{{{_ON}}}[10m])) > 0",
                    "{{kind}}",
                ),
            ),
        ),
    ),
    "Backends": (
        Panel(
            "Backends that answer",
            ((f"wa_backend_up{{{_MACHINE}}}", "{{machine}} {{backend}}"),),
        ),
        Panel(
            "Sessions on backends",
            (
                (
                    f'wa_backend_sessions{{state="connected",{_MACHINE}}}',
                    "{{machine}} {{backend}} connected",
                ),
                (f'wa_backend_sessions{{state="held",{_MACHINE}}}', "{{machine}} {{backend}} ours"),
            ),
        ),
        Panel(
            "A backend's answer takes",
            ((f"wa_backend_check_duration_seconds{{{_MACHINE}}}", "{{machine}} {{backend}}"),),
            unit="s",
        ),
    ),
    "Messages": (
        Panel(
            "Messages per minute",
            (
                (
                    "sum by (direction, result)"
                    f" (rate(wa_session_messages_total{{{_ON}}}[5m])) * 60",
                    "{{direction}} {{result}}",
                ),
            ),
        ),
        Panel(
            "Mean time to answer",
            (
                (
                    f"rate(wa_session_response_time_seconds_sum{{{_ON}}}[5m])"
                    f" / rate(wa_session_response_time_seconds_count{{{_ON}}}[5m])",
                    "{{machine}} {{session}}",
                ),
            ),
            unit="s",
        ),
        Panel(
            "Messages that cannot be decrypted",
            (
                (
                    "sum by (machine, session) (rate(wa_session_crypto_operations_total"
                    f'{{result="failed",{_ON}}}[5m])) * 60 > 0',
                    "{{machine}} {{session}}",
                ),
            ),
        ),
    ),
    "Resources": (
        Panel(
            "Memory of sessions",
            ((f"wa_session_memory_bytes{{{_ON}}}", "{{machine}} {{session}}"),),
            unit="bytes",
        ),
        Panel(
            "CPU of sessions",
            ((f"rate(wa_session_cpu_seconds_total{{{_ON}}}[5m])", "{{machine}} {{session}}"),),
            unit="percentunit",
        ),
        Panel(
            "The machine",
            (
                (f"wa_host_cpu_usage_ratio{{{_MACHINE}}}", "{{machine}} cpu"),
                (
                    f"wa_host_memory_used_bytes{{{_MACHINE}}}"
                    f" / wa_host_memory_total_bytes{{{_MACHINE}}}",
                    "{{machine}} memory",
                ),
                (
                    f"1 - wa_host_filesystem_avail_bytes{{{_MACHINE}}}"
                    f" / wa_host_filesystem_size_bytes{{{_MACHINE}}}",
                    "{{machine}} disk",
                ),
            ),
            unit="percentunit",
        ),
    ),
    "The agent": (
        Panel(
            "A pass, on average",
            (
                (
                    f"rate(wa_agent_pass_duration_seconds_sum{{{_MACHINE}}}[5m])"
                    f" / rate(wa_agent_pass_duration_seconds_count{{{_MACHINE}}}[5m])",
                    "{{machine}} pass",
                ),
                (
                    f"rate(wa_agent_db_write_seconds_sum{{{_MACHINE}}}[5m])"
                    f" / rate(wa_agent_db_write_seconds_count{{{_MACHINE}}}[5m])",
                    "{{machine}} commit",
                ),
                (f"wa_agent_event_loop_lag_seconds{{{_MACHINE}}}", "{{machine}} loop lag"),
            ),
            unit="s",
        ),
        Panel(
            "Requests",
            (
                (
                    f"sum by (code) (rate(wa_agent_http_requests_total{{{_MACHINE}}}[5m]))",
                    "{{code}}",
                ),
            ),
            unit="reqps",
        ),
        Panel(
            "Events that wait for webhooks",
            ((f'wa_agent_outbox_length{{kind="webhook",{_MACHINE}}}', "{{machine}}"),),
        ),
        Panel(
            "Deliveries of webhooks per minute",
            (
                (
                    "sum by (result)"
                    f" (rate(wa_agent_webhook_deliveries_total{{{_MACHINE}}}[5m])) * 60 > 0",
                    "{{result}}",
                ),
            ),
        ),
        Panel(
            "The agent's memory",
            ((f'process_resident_memory_bytes{{job="wa-agent",{_MACHINE}}}', "{{machine}}"),),
            unit="bytes",
        ),
        Panel(
            "The agent's open files, of those it may open",
            (
                (
                    f'process_open_fds{{job="wa-agent",{_MACHINE}}}'
                    f' / process_max_fds{{job="wa-agent",{_MACHINE}}}',
                    "{{machine}}",
                ),
            ),
            unit="percentunit",
            thresholds=((0.8, "orange"),),
        ),
        Panel(
            "Who waits for a turn to log in",
            ((f"wa_agent_waiting_starts{{{_MACHINE}}}", "{{machine}}"),),
        ),
        Panel(
            "The database",
            ((f"wa_agent_db_size_bytes{{{_MACHINE}}}", "{{machine}}"),),
            unit="bytes",
        ),
    ),
}


def queries() -> Iterator[str]:
    """Every query of the dashboard, with its variables standing for everything."""
    for panels in ROWS.values():
        for panel in panels:
            for query, _ in panel.queries:
                yield query.replace("$machine", ".*").replace("$session", ".*")


def dashboard_file() -> str:
    found = {
        "title": "WhatsApp sessions (wa-agent)",
        "uid": "wa-agent",
        "tags": ["wa-agent"],
        "timezone": "browser",
        "schemaVersion": 38,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                _source(),
                _variable("machine", "label_values(wa_agent_info, machine)"),
                _variable("session", 'label_values(wa_session_info{machine=~"$machine"}, session)'),
            ]
        },
        "annotations": {
            "list": [
                {
                    "name": "Alerts",
                    "enable": True,
                    "datasource": _DATASOURCE,
                    "expr": f'ALERTS{{alertstate="firing",alertname=~"Wa.*",{_MACHINE}}}',
                    "titleFormat": "{{alertname}}",
                    "textFormat": "{{machine}} {{session}}",
                    "iconColor": "red",
                }
            ]
        },
        "panels": list(_panels()),
    }
    return json.dumps(found, indent=1) + "\n"


_DATASOURCE = {"type": "prometheus", "uid": "${source}"}


def _source() -> dict[str, Any]:
    return {"name": "source", "type": "datasource", "query": "prometheus", "label": "Source"}


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": _DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _panels() -> Iterator[dict[str, Any]]:
    number, top = 1, 0
    for title, panels in ROWS.items():
        place = {"x": 0, "y": top, "w": 24, "h": 1}
        yield {"id": number, "type": "row", "title": title, "gridPos": place, "panels": []}
        number, top, left = number + 1, top + 1, 0
        for panel in panels:
            height = 4 if panel.kind == "stat" else 8
            if left + panel.width > 24:
                left, top = 0, top + height
            yield _panel(panel, number, {"x": left, "y": top, "w": panel.width, "h": height})
            number, left = number + 1, left + panel.width
            if left == 24:
                left, top = 0, top + height
        top += 8 if left else 0


def _panel(panel: Panel, number: int, place: Mapping[str, int]) -> dict[str, Any]:
    custom: dict[str, Any] = {}
    if panel.stacked:
        custom = {"fillOpacity": 20, "stacking": {"mode": "normal"}}
    elif panel.thresholds and panel.kind == "timeseries":
        custom = {"thresholdsStyle": {"mode": "dashed"}}
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    steps += [{"color": color, "value": value} for value, color in panel.thresholds]
    defaults = {
        "unit": panel.unit,
        "custom": custom,
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    table = panel.kind == "table"
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "datasource": _DATASOURCE,
        "gridPos": dict(place),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {
                "refId": chr(65 + at),
                "expr": query,
                "legendFormat": legend,
                **({"format": "table", "instant": True} if table else {}),
            }
            for at, (query, legend) in enumerate(panel.queries)
        ],
        **(_one_table(panel) if table else {}),
    }


def _one_table(panel: Panel) -> dict[str, Any]:
    """The queries side by side, a row for each session, the worst first."""
    names = {f"Value #{chr(65 + at)}": legend for at, (_, legend) in enumerate(panel.queries)}
    worst = panel.queries[0][1]
    return {
        "transformations": [
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": names}},
        ],
        "options": {"sortBy": [{"displayName": worst, "desc": True}]},
    }
