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
        ),
        Panel(
            "Given up",
            ((f"sum(wa_session_given_up{{{_ON}}})", "given up"),),
            kind="stat",
            width=6,
        ),
        Panel(
            "Incidents",
            ((f"sum(wa_agent_incident_active{{{_MACHINE}}})", "incidents"),),
            kind="stat",
            width=6,
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
    "Connections": (
        Panel(
            "Reconnects in 10 minutes",
            (
                (
                    f"sum by (session) (increase(wa_session_reconnects_total{{{_ON}}}[10m])) > 0",
                    "{{session}}",
                ),
            ),
        ),
        Panel(
            "Age of the proof",
            ((f"time() - wa_session_proof_timestamp_seconds{{{_ON}}}", "{{session}}"),),
            unit="s",
        ),
        Panel(
            "Connected for",
            ((f"wa_session_uptime_seconds{{{_ON}}}", "{{session}}"),),
            unit="s",
        ),
        Panel(
            "Open circuits",
            ((f'wa_session_circuit{{state="open",{_ON}}}', "{{session}}"),),
        ),
        Panel(
            "Restarts of workers in an hour",
            (
                (
                    f"sum by (reason) (increase(wa_session_restarts_total{{{_ON}}}[1h]))",
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
            ((f"wa_backend_up{{{_MACHINE}}}", "{{backend}}"),),
        ),
        Panel(
            "Sessions on backends",
            (
                (f'wa_backend_sessions{{state="connected",{_MACHINE}}}', "{{backend}} connected"),
                (f'wa_backend_sessions{{state="held",{_MACHINE}}}', "{{backend}} ours"),
            ),
        ),
        Panel(
            "A backend's answer takes",
            ((f"wa_backend_check_duration_seconds{{{_MACHINE}}}", "{{backend}}"),),
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
                    "{{session}}",
                ),
            ),
            unit="s",
        ),
        Panel(
            "Messages that cannot be decrypted",
            (
                (
                    "sum by (session) (rate(wa_session_crypto_operations_total"
                    f'{{result="failed",{_ON}}}[5m])) * 60 > 0',
                    "{{session}}",
                ),
            ),
        ),
    ),
    "Resources": (
        Panel(
            "Memory of sessions",
            ((f"wa_session_memory_bytes{{{_ON}}}", "{{session}}"),),
            unit="bytes",
        ),
        Panel(
            "CPU of sessions",
            ((f"rate(wa_session_cpu_seconds_total{{{_ON}}}[5m])", "{{session}}"),),
            unit="percentunit",
        ),
        Panel(
            "The machine",
            (
                (f"wa_host_cpu_usage_ratio{{{_MACHINE}}}", "cpu"),
                (
                    f"wa_host_memory_used_bytes{{{_MACHINE}}}"
                    f" / wa_host_memory_total_bytes{{{_MACHINE}}}",
                    "memory",
                ),
                (
                    f"1 - wa_host_filesystem_avail_bytes{{{_MACHINE}}}"
                    f" / wa_host_filesystem_size_bytes{{{_MACHINE}}}",
                    "disk",
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
                    "pass",
                ),
                (
                    f"rate(wa_agent_db_write_seconds_sum{{{_MACHINE}}}[5m])"
                    f" / rate(wa_agent_db_write_seconds_count{{{_MACHINE}}}[5m])",
                    "commit",
                ),
                (f"wa_agent_event_loop_lag_seconds{{{_MACHINE}}}", "loop lag"),
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
            (
                (f'wa_agent_outbox_length{{kind="webhook",{_MACHINE}}}', "waiting"),
                (
                    "sum by (result)"
                    f" (rate(wa_agent_webhook_deliveries_total{{{_MACHINE}}}[5m])) * 60",
                    "{{result}} per minute",
                ),
            ),
        ),
        Panel(
            "The agent's memory and files",
            (
                (f'process_resident_memory_bytes{{job="wa-agent",{_MACHINE}}}', "memory"),
                (f'process_open_fds{{job="wa-agent",{_MACHINE}}}', "open files"),
            ),
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
                    "textFormat": "{{session}}",
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
    custom = {"fillOpacity": 20, "stacking": {"mode": "normal"}} if panel.stacked else {}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "datasource": _DATASOURCE,
        "gridPos": dict(place),
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": custom}, "overrides": []},
        "targets": [
            {"refId": chr(65 + at), "expr": query, "legendFormat": legend}
            for at, (query, legend) in enumerate(panel.queries)
        ],
    }
