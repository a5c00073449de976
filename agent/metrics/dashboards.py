"""The file of a Grafana dashboard, made of the panels in dashboard.toml."""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from agent.wing import wings

FILE = "dashboard.toml"
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
    """Values with the colour from there on; below the first it is green."""


def _panel_of(table: dict[str, Any]) -> Panel:
    queries = tuple(
        (query.replace("$on", _ON).replace("$of", _MACHINE), legend)
        for query, legend in table.pop("queries")
    )
    thresholds = tuple((value, color) for value, color in table.pop("thresholds", ()))
    return Panel(queries=queries, thresholds=thresholds, **table)


@cache
def rows() -> Mapping[str, Sequence[Panel]]:
    """The panels by the title of their row: those of dashboard.toml, then those of the wings."""
    panels: dict[str, list[Panel]] = {}
    for file in (Path(__file__).with_name(FILE), *(wing.file(FILE) for wing in wings())):
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        for row in tomllib.loads(text).get("row", ()):
            panels.setdefault(row["title"], []).extend(map(_panel_of, row["panel"]))
    return panels


def queries() -> Iterator[str]:
    """Every query of the dashboard, with its variables standing for everything."""
    for panels in rows().values():
        for panel in panels:
            for query, _ in panel.queries:
                yield query.replace("$machine", ".*").replace("$session", ".*")


def dashboard_file() -> str:
    dashboard = {
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
    return json.dumps(dashboard, indent=1) + "\n"


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
    for title, panels in rows().items():
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
