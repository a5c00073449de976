"""The table of alerts as files for Prometheus and Alertmanager, with this machine's numbers."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from agent.core.alerts.alert import INHIBITIONS, Alert, Because, Inhibition
from agent.core.alerts.reading import duration
from agent.metrics.runbook import link, what_to_do

JOB = "wa-agent"
RULES_FILE = "wa-agent.rules.yml"


@dataclass(frozen=True, slots=True)
class Site:
    """This machine's values in the files."""

    machine: str
    address: str
    """HOST:PORT of /metrics."""
    interval: float = 15.0
    patience: float = 1.0
    """Factor of the time that a condition must hold; drills use less than 1."""
    runbooks: str = "http://127.0.0.1:8470/runbook"
    key_file: str = "/etc/prometheus/wa-agent.key"
    alertmanager: str = "127.0.0.1:9093"

    def seconds(self, usual: float, least: float = 1.0) -> str:
        """An interval, which drills shorten too."""
        return duration(max(round(usual * min(self.patience, 1.0), 3), least))


def rules_file(alerts: Iterable[Alert], site: Site) -> str:
    lines = [
        "# Alerts of wa-agent. Made by `wa-agent alerts export`; the numbers are agent.toml's."
    ]
    lines.append("groups:")
    for group, members in groupby(alerts, key=lambda alert: alert.group):
        lines += [f"  - name: wa-agent-{group}", f"    interval: {site.seconds(15)}", "    rules:"]
        for alert in members:
            lines += _rule(alert, site)
    return "\n".join(lines) + "\n"


def _rule(alert: Alert, site: Site) -> list[str]:
    hold = alert.for_seconds * site.patience
    return [
        f"      - alert: {alert.name}",
        # PromQL has double quotes of its own; it never has single ones here.
        f"        expr: '{alert.condition.promql()}'",
        *([f"        for: {duration(hold)}"] if hold >= 0.001 else []),
        "        labels:",
        f"          severity: {alert.severity}",
        f"          group: {alert.group}",
        "        annotations:",
        f"          summary: {_text(template(alert))}",
        f"          description: {_text(_description(alert))}",
        f"          runbook: {_text(link(alert, site.runbooks))}",
    ]


def template(alert: Alert) -> str:
    """The summary in Prometheus' template language; numbers are written for people."""
    text = alert.summary.replace("{value}", f"{{{{ $value | {alert.unit} }}}}")
    for label in ("session", "engine", "backend"):
        text = text.replace(f"{{{label}}}", f"{{{{ $labels.{label} }}}}")
    return text.replace("{because}", _because(alert.because))


def _because(source: Because | None) -> str:
    """A template that Prometheus fills with the reason; empty without a source."""
    if source is None:
        return ""
    labels = ("instance", *source.by)
    matchers = ",".join(f"{name}=%q" for name in labels)
    values = " ".join(f"$labels.{name}" for name in labels)
    query = f'printf "{source.metric}{{{matchers}}}" {values} | query'
    return f'{{{{ with {query} }}}}: {{{{ . | first | label "reason" }}}}{{{{ end }}}}'


def _description(alert: Alert) -> str:
    """The runbook's paragraph, with the session's name in its commands."""
    of_session = "{session}" in alert.summary
    return what_to_do(alert, "{{ $labels.session }}" if of_session else "")


def prometheus_file(site: Site) -> str:
    return f"""\
# An example for Prometheus: the agent's metrics and alerts. This command makes the key:
#   wa-agent key add prometheus --scope read   (write its token alone into the credentials_file)
global:
  scrape_interval: {site.seconds(15)}
  evaluation_interval: {site.seconds(15)}
rule_files:
  - {RULES_FILE}
alerting:
  alertmanagers:
    - static_configs:
        - targets: [{_text(site.alertmanager)}]
scrape_configs:
  - job_name: {JOB}
    authorization:
      credentials_file: {_text(site.key_file)}
    static_configs:
      - targets: [{_text(site.address)}]
        labels:
          machine: {_text(site.machine)}
"""


def alertmanager_file(site: Site) -> str:
    """Receivers of three kinds; its reader replaces the addresses."""
    return f"""\
# An example for Alertmanager. Replace the addresses; keep the receivers that you use.
global:
  smtp_smarthost: "localhost:25"
  smtp_from: {_text(f"wa-agent@{site.machine}")}
  # A mail server on this machine rarely offers TLS; say true for one elsewhere.
  smtp_require_tls: false
route:
  receiver: mail
  group_by: [alertname, machine]
  group_wait: {site.seconds(30)}
  group_interval: {site.seconds(300)}
  repeat_interval: {site.seconds(14400, least=60)}
  routes:
    # Its receiver raises the alarm when this alert stops.
    - matchers: ['alertname="WaDeadMansSwitch"']
      receiver: heartbeat
      group_wait: 0s
      repeat_interval: {site.seconds(300)}
    - matchers: ['severity="critical"']
      receiver: chat
      continue: true
    - matchers: ['severity=~"critical|warning"']
      receiver: webhook
      continue: true
    - matchers: ['severity=~"critical|warning"']
      receiver: mail
receivers:
  - name: mail
    email_configs:
      - to: "operators@example.com"
        send_resolved: true
  - name: webhook
    webhook_configs:
      - url: "http://127.0.0.1:9099/alerts"
        send_resolved: true
  - name: chat
    slack_configs:
      - api_url: "https://chat.example.com/hooks/replace-me"
        channel: "#operations"
        send_resolved: true
        title: '{{{{ .GroupLabels.alertname }}}} on {{{{ .GroupLabels.machine }}}}'
        text: >-
          {{{{ range .Alerts }}}}{{{{ .Annotations.summary }}}}. {{{{ .Annotations.description }}}}
          ({{{{ .Annotations.runbook }}}}) {{{{ end }}}}
  - name: heartbeat
    webhook_configs:
      - url: "http://127.0.0.1:9099/heartbeat"
        send_resolved: false
inhibit_rules:
{chr(10).join(_inhibition(rule) for rule in INHIBITIONS)}
"""


def _inhibition(rule: Inhibition) -> str:
    return "\n".join(
        (
            f"  - source_matchers: ['alertname=\"{rule.source}\"']",
            f"    target_matchers: ['alertname=~\"{_names(rule.silences)}\"']",
            f"    equal: [{', '.join(('machine', *rule.equal))}]",
        )
    )


def _names(names: Sequence[str]) -> str:
    return "|".join(name.replace("*", ".*") for name in names)


def _text(text: str) -> str:
    """A JSON string is a YAML one."""
    return json.dumps(text, ensure_ascii=False)
