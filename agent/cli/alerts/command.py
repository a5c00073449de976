"""Alerts: what is active, and the files for Prometheus, Alertmanager and Grafana."""

import argparse
import os
import shutil
import socket
import textwrap
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.cli.agent import overrides_of
from agent.cli.command import Subparsers, add_command, client_of, wants_json
from agent.cli.places import config_path
from agent.cli.terminal.show import clean, moment, print_json, print_table
from agent.errors import InvalidRequest, NotFound, WaError
from agent.files import write_whole

WEBHOOK = "127.0.0.1:9099"
"""Where the exported example sends its webhooks."""


def add(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "alerts",
        show,
        "show the alerts that are active; exit status 1 while one fires",
        "wa-agent alerts",
    )
    parser.add_argument("--all", action="store_true", help="also alerts that are over")
    among = parser.add_subparsers(metavar="COMMAND")
    parser = add_command(
        among,
        "export",
        export,
        "write rules, examples and a dashboard for Prometheus, Alertmanager and Grafana",
        "wa-agent alerts export /etc/prometheus",
    )
    _add_export_options(parser)
    parser = add_command(
        among, "explain", explain, "say what to do about an alert",
        "wa-agent alerts explain WaSessionDown",
    )  # fmt: skip
    parser.add_argument("name", metavar="NAME", help="the alert's name")
    example = "wa-agent alerts listen"
    about = "print the notifications that an Alertmanager posts to the example's webhook"
    listener = add_command(among, "listen", listen, about, example)
    listener.add_argument(
        "--at",
        metavar="HOST:PORT",
        default=WEBHOOK,
        help=f"address to listen on, default {WEBHOOK}",
    )


def _add_export_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="folder for the files")
    parser.add_argument("--config", metavar="FILE", help="agent.toml")
    parser.add_argument("--state", metavar="DIR", help="the state directory")
    parser.add_argument("--listen", metavar="HOST:PORT", help="the HTTP address to scrape")
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
    from agent.cli.alerts.listener import listen  # it brings a server: only for who asks for one

    return listen(options.at, as_json=wants_json(options))


def show(options: argparse.Namespace) -> int:
    found = client_of(options).get("/api/alerts")
    active = [one for one in found["alerts"] if options.all or one["state"] != "resolved"]
    if wants_json(options):
        print_json({**found, "alerts": active})
    else:
        shown = [one for one in active if one["severity"] != "none"]
        _print(shown, found["alertmanager_problem"])
    loud = [one for one in active if one["state"] == "firing" and one["severity"] != "none"]
    return 1 if loud else 0


def _print(alerts: list[dict[str, Any]], problem: str) -> None:
    if not alerts:
        print("no alert is active")
    else:
        rows = [
            (
                one["state"] if one["silenced_by"] is None else f"under {one['silenced_by']}",
                one["severity"],
                one["name"],
                moment(one["over"] or one["fired"] or one["since"]),
                one["sentence"],
            )
            for one in alerts
        ]
        print_table(("STATE", "SEVERITY", "ALERT", "SINCE", "WHAT"), rows)
        print(f"what to do: wa-agent alerts explain {shown_name(alerts)}")
    if problem:
        print(f"the Alertmanager takes no alerts: {clean(problem)}")


def shown_name(alerts: list[dict[str, Any]]) -> str:
    """The one to look at first."""
    loud = sorted(alerts, key=lambda one: (one["state"] != "firing", one["severity"]))
    return clean(loud[0]["name"])


def explain(options: argparse.Namespace) -> int:
    """Needs no agent: the text is the program's own."""
    from agent.core.alerts import AlertPolicy, alert_table
    from agent.metrics.runbook import what_to_do

    wanted = options.name.lower()
    every = alert_table(AlertPolicy(availability=0.99))  # those that are an option, too
    found = [one for one in every if one.name.lower() == wanted]
    if not found:
        raise NotFound(f"cannot explain {options.name}: there is no alert of that name")
    (alert,) = found
    if wants_json(options):
        said = {"name": alert.name, "severity": alert.severity, "what_to_do": what_to_do(alert)}
        print_json(said)
    else:
        print(f"{alert.name} ({alert.severity})")
        print(textwrap.fill(what_to_do(alert), min(shutil.get_terminal_size().columns, 100)))
    return 0


def export(options: argparse.Namespace) -> int:
    if not 0 < options.speed_up <= 3600:
        raise InvalidRequest("cannot export: --speed-up must be more than 0 and at most 3600")
    files = _files(options)
    folder, written, kept = Path(options.folder), [], []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            target = folder / name
            changed = target.exists() and target.read_text() != text
            if changed and ".example." in name and not options.force:
                kept.append(str(target))
                continue
            _write(target, text)
            written.append(str(target))
    except (OSError, UnicodeDecodeError) as error:
        raise WaError(f"cannot write into {folder}: {error}") from error
    if wants_json(options):
        print_json({"written": written, "kept": kept})
    else:
        for path in written:
            print(f"{path} written")
        for path in kept:
            print(f"{path} kept as it is; --force replaces it")
    return 0


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
    chosen = config.alerts
    named = {"key_file": options.key_file} if options.key_file else {}
    if chosen.alertmanager:
        named["alertmanager"] = urlsplit(chosen.alertmanager).netloc
    site = Site(
        machine=chosen.machine or socket.gethostname(),
        address=config.scraped_at,
        patience=chosen.patience / options.speed_up,
        runbooks=config.runbooks,
        **named,
    )
    alerts = [one for one in config.alert_table if one.name not in chosen.off]
    return {
        RULES_FILE: rules_file(alerts, site),
        "prometheus.example.yml": prometheus_file(site),
        "alertmanager.example.yml": alertmanager_file(site),
        "grafana-dashboard.json": dashboard_file(),
    }


def _running_listen(options: argparse.Namespace) -> dict[str, str]:
    """Where the agent that answers is scraped, unless the command line names another one."""
    if options.listen or options.config or options.state:
        return {}
    try:
        places = client_of(options).get("/api/health")["agent"].get("places", {})
    except WaError:
        return {}
    return {"api.listen": places["listen"]} if places.get("listen") else {}


def _write(target: Path, text: str) -> None:
    """Whole or not at all: Prometheus may read it at this very moment."""
    # Nothing in them is secret, and Prometheus is another user.
    write_whole(target, text.encode(), mode=0o644)
