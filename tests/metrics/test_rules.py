"""The files for Prometheus and Grafana; promtool is the judge."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from agent.core.model import InstanceId
from agent.metrics import exporter
from agent.metrics.exporter import Exporter, render
from tests.fakes.supervisor import FakeSupervisor, make_view

FILES = Path(exporter.__file__).parent
RULES = FILES / "rules.yml"
UP = {"series": 'up{job="wa-agent"}', "values": "1x60"}


def promtool(*argv: str) -> subprocess.CompletedProcess[str]:
    assert shutil.which("promtool"), "promtool is missing; scripts/test installs its package"
    return subprocess.run(["promtool", *argv], capture_output=True, text=True, check=False)


def at(minute: int, alert: str, *labels: dict[str, str]) -> dict[str, Any]:
    return {
        "eval_time": f"{minute}m",
        "alertname": alert,
        "exp_alerts": [{"exp_labels": each} for each in labels],
    }


def test_rules_forward_troubles_and_see_an_agent_that_is_away(tmp_path: Path) -> None:
    trouble = {"kind": "down", "severity": "warning", "session": "a"}
    labels = ",".join(f'{name}="{value}"' for name, value in trouble.items())
    critical, job = {"severity": "critical"}, {"job": "wa-agent"}
    tests = [
        {
            "interval": "1m",
            "input_series": [
                UP,
                {"series": f"wa_trouble{{{labels}}}", "values": "1 1 1 _x60"},
                {"series": "wa_agent_last_pass_age_seconds", "values": "1x9 70x9 1x40"},
            ],
            "alert_rule_test": [
                at(1, "WaTrouble", trouble),
                at(20, "WaTrouble"),
                at(5, "WaAgentLate"),
                at(15, "WaAgentLate", critical),
                at(30, "WaAgentDown"),
                at(30, "WaAgentAbsent"),
                at(30, "WaDeadMansSwitch", {"severity": "none"}),
            ],
        },
        {
            "interval": "1m",
            "input_series": [
                {"series": 'up{job="wa-agent"}', "values": "1x4 0x30"},
                {"series": 'process_start_time_seconds{job="wa-agent"}', "values": "1 2 3 4 4x30"},
            ],
            "alert_rule_test": [
                at(5, "WaAgentDown"),
                at(8, "WaAgentDown", {**critical, **job}),
                at(5, "WaAgentRestarting", {"severity": "warning", **job}),
            ],
        },
        {"interval": "1m", "alert_rule_test": [at(6, "WaAgentAbsent", {**critical, **job})]},
    ]
    for test in tests:  # annotations are words; only labels are compared
        for case in test["alert_rule_test"]:  # type: ignore[attr-defined]
            for one in case["exp_alerts"]:
                one["exp_annotations"] = said(case["alertname"], one["exp_labels"])
    cases = tmp_path / "cases.yml"
    cases.write_text(json.dumps({"rule_files": [str(RULES)], "tests": tests}))
    done = promtool("test", "rules", str(cases))
    assert done.returncode == 0, done.stdout + done.stderr


def said(alert: str, labels: dict[str, str]) -> dict[str, str]:
    """The annotations as the file has them, their templates filled."""
    text = RULES.read_text().partition(f"- alert: {alert}\n")[2].partition("- alert:")[0]
    found = dict(re.findall(r"(summary|description): '(.*)'", text))
    if alert == "WaTrouble":
        found["summary"] = f"{labels['kind']} of session {labels['session']}"
    if alert == "WaAgentRestarting":
        found["summary"] = found["summary"].replace("{{ $value }}", "3")
    return found


def test_the_dashboard_asks_for_metrics_that_there_are(tmp_path: Path) -> None:
    supervisor = FakeSupervisor()
    supervisor.known = {InstanceId("a"): make_view("a")}
    queries = re.findall(r'"expr": "(.*)"', (FILES / "grafana.json").read_text())
    assert len(queries) > 20
    rules = [
        {"record": f"query:{number}", "expr": json.loads(f'"{query}"').replace("$", "")}
        for number, query in enumerate(queries)
    ]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    checked = promtool("check", "rules", str(file))
    assert checked.returncode == 0, checked
    shown = render(Exporter(supervisor.views, supervisor.status, [tmp_path]).families()).decode()
    printed = set(re.findall(r"^(\w+)[{ ]", shown, re.MULTILINE))
    # Names of metrics of servers, requests and rooms that this agent has not
    sources = "".join(path.read_text() for path in FILES.parent.rglob("*.py"))
    for name in set(re.findall(r"\bwa_[a-z_]+", " ".join(queries))) - printed:
        assert not name.startswith("wa_session_"), name
        assert f'"{re.sub(r"_(sum|count|bucket)$", "", name)}"' in sources, name
