"""The active alerts, and the files for Prometheus, Alertmanager and Grafana."""

import argparse
import os
import shutil
import socket
import textwrap
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.cli.agent import overrides_of
from agent.cli.command import (
    Subparsers,
    add_command,
    add_config_options,
    client_of,
    wants_json,
)
from agent.cli.doctor.agent_settings import places_of
from agent.cli.paths import config_path
from agent.cli.terminal.answer import print_answer
from agent.cli.terminal.show import clean, moment, table_lines
from agent.errors import InvalidRequest, NotFound, WaError
from agent.files import write_whole

WEBHOOK = "127.0.0.1:9099"
"""The address that the exported example posts notifications to."""


def add(commands: Subparsers) -> None:
    summary = "show the alerts that are active; exit status 1 while one fires"
    parser = add_command(commands, "alerts", show, summary)
    parser.add_argument("--all", action="store_true", help="also alerts that are over")
    among = parser.add_subparsers(metavar="COMMAND")
    summary = "write rules, examples and a dashboard for Prometheus, Alertmanager and Grafana"
    _add_export_options(add_command(among, "export", export, summary, "/etc/prometheus"))
    summary = "print the runbook's paragraph about an alert"
    parser = add_command(among, "explain", explain, summary, "WaSessionDown")
    parser.add_argument("name", metavar="NAME", help="the alert's name")
    summary = "print the notifications that an Alertmanager posts to the example's webhook"
    listener = add_command(among, "listen", listen, summary)
    listener.add_argument(
        "--at",
        metavar="HOST:PORT",
        default=WEBHOOK,
        help=f"address to listen on, default {WEBHOOK}",
    )


def _add_export_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="folder for the files")
    add_config_options(parser, listen="the HTTP address to scrape")
    parser.add_argument(
        "--key-file",
        metavar="FILE",
        help="path, on Prometheus' machine, of the file with the key for /metrics",
    )
    parser.add_argument(
        "--speed-up",
        metavar="N",
        type=float,
        default=1.0,
        help="for drills: divide the time of each condition by N",
    )
    parser.add_argument("--force", action="store_true", help="also replace changed examples")


def listen(options: argparse.Namespace) -> int:
    from agent.wings.alerting.listener import listen  # other commands start without an HTTP server

    return listen(options.at, as_json=wants_json(options))


def show(options: argparse.Namespace) -> int:
    board = client_of(options).get("/api/alerts")
    alerts = [alert for alert in board["alerts"] if options.all or alert["state"] != "resolved"]
    loud = [alert for alert in alerts if alert["severity"] != "none"]
    lines = _lines(loud) if loud else ["no alert is active"]
    if board["alertmanager_problem"]:
        lines.append(f"the Alertmanager takes no alerts: {clean(board['alertmanager_problem'])}")
    fires = any(alert["state"] == "firing" for alert in loud)
    return print_answer(options, {**board, "alerts": alerts}, *lines, good=not fires)


def _lines(alerts: list[dict[str, Any]]) -> list[str]:
    rows = [
        (
            f"under {alert['silenced_by']}" if alert["silenced_by"] else alert["state"],
            alert["severity"],
            alert["name"],
            moment(alert["over"] or alert["fired"] or alert["since"]),
            alert["sentence"],
        )
        for alert in alerts
    ]
    worst = min(alerts, key=lambda alert: (alert["state"] != "firing", alert["severity"]))
    return [
        *table_lines(("STATE", "SEVERITY", "ALERT", "SINCE", "WHAT"), rows),
        f"runbook: wa-agent alerts explain {clean(worst['name'])}",
    ]


def explain(options: argparse.Namespace) -> int:
    """The runbook is a part of the program: no agent is asked."""
    from agent.config.alerts import alert_table
    from agent.core.alerts import AlertPolicy
    from agent.metrics.runbook import what_to_do

    table = alert_table(AlertPolicy(availability=0.99))  # the optional alerts, too
    alert = next((row for row in table if row.name.lower() == options.name.lower()), None)
    if alert is None:
        raise NotFound(f"cannot explain {options.name}: there is no alert of that name")
    text = what_to_do(alert)
    return print_answer(
        options,
        {"name": alert.name, "severity": alert.severity, "what_to_do": text},
        f"{alert.name} ({alert.severity})",
        textwrap.fill(text, min(shutil.get_terminal_size().columns, 100)),
    )


def export(options: argparse.Namespace) -> int:
    if not 0 < options.speed_up <= 3600:
        raise InvalidRequest("cannot export: --speed-up must be more than 0 and at most 3600")
    files = _files(options)
    folder, written, unchanged = Path(options.folder), [], []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            target = folder / name
            changed = target.exists() and target.read_text() != text
            if changed and ".example." in name and not options.force:
                unchanged.append(str(target))
                continue
            # Whole or not at all, and readable for its user: Prometheus may read it just now.
            write_whole(target, text.encode(), mode=0o644)
            written.append(str(target))
    except (OSError, UnicodeDecodeError) as error:
        raise WaError(f"cannot write into {folder}: {error}") from error
    lines = [f"{path} written" for path in written]
    lines += [f"{path} kept as it is; --force replaces it" for path in unchanged]
    return print_answer(options, {"written": written, "kept": unchanged}, *lines)


def _files(options: argparse.Namespace) -> dict[str, str]:
    # The table and its renderers cost every other command some hundredths of a second.
    from agent.config import load_config
    from agent.metrics.dashboards import dashboard_file
    from agent.metrics.rules import (
        RULES_FILE,
        Site,
        alertmanager_file,
        prometheus_file,
        rules_file,
    )

    overrides = {**_running_listen(options), **overrides_of(options)}
    config = load_config(config_path(options.config, os.environ), os.environ, overrides=overrides)
    section = config.alerts
    named = {"key_file": options.key_file} if options.key_file else {}
    if section.alertmanager:
        named["alertmanager"] = urlsplit(section.alertmanager).netloc
    site = Site(
        machine=section.machine or socket.gethostname(),
        address=config.scraped_at,
        patience=section.patience / options.speed_up,
        runbooks=config.runbooks,
        **named,
    )
    alerts = [alert for alert in config.alert_table if alert.name not in section.off]
    return {
        RULES_FILE: rules_file(alerts, site),
        "prometheus.example.yml": prometheus_file(site),
        "alertmanager.example.yml": alertmanager_file(site),
        "grafana-dashboard.json": dashboard_file(),
    }


def _running_listen(options: argparse.Namespace) -> dict[str, str]:
    """The HTTP address of the running agent, unless the command line gives one."""
    if options.listen or options.config or options.state:
        return {}
    listen = places_of(client_of(options)).get("listen")
    return {"api.listen": listen} if listen else {}
