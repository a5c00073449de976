"""The health of the agent and of its instances."""

import argparse
from collections.abc import Mapping
from typing import Any

from agent.cli.command import Subparsers, add_command, client_of, instance_id
from agent.cli.sessions.repair_round import TO_THE_END
from agent.cli.terminal.answer import print_answer
from agent.cli.terminal.show import moment, pair_lines, table_lines
from agent.core.reasons import REASONS


def add(commands: Subparsers) -> None:
    summary = "show the agent's health, or check instances now; exit status 1 when not well"
    parser = add_command(commands, "health", health, summary, "sales")
    parser.add_argument(
        "id", metavar="ID", nargs="?", type=instance_id, help="check this instance now"
    )
    parser.add_argument("--check", action="store_true", help="check every instance now")


def health(options: argparse.Namespace) -> int:
    if options.id is not None:
        return _check_instance(options)
    if options.check:
        return _check_every(options)
    report = client_of(options).get("/api/health")
    agent, instances, restoring = report["agent"], report["instances"], report["agent"]["restoring"]
    lines = pair_lines(
        {
            "agent": report["status"].replace("_", " "),
            **({"in trouble": ", ".join(report["in_trouble"])} if report["in_trouble"] else {}),
            "version": agent["version"],
            "host": agent["host"],
            "started": moment(agent["started"]),
            "restored": f"{restoring['done']} of {restoring['total']}",
            "instances": f"{instances['total']}, enabled {instances['enabled']}",
            "by status": _counts(instances["by_status"]),
            "by verdict": _counts(instances["by_verdict"]),
        }
    )
    return print_answer(options, report, *lines, good=report["status"] == "ok")


def _check_instance(options: argparse.Namespace) -> int:
    health = client_of(options).post(f"/api/instance/{options.id}/health{TO_THE_END}")
    lines = pair_lines({options.id: f"{health['verdict']}: {health['sentence']}"})
    return print_answer(options, health, *lines, good=health["healthy"])


def _check_every(options: argparse.Namespace) -> int:
    answer = client_of(options).post(f"/api/health/check{TO_THE_END}")
    results: dict[str, dict[str, Any]] = answer["results"]
    rows = [
        (id, health["state"], health["verdict"], health["sentence"])
        for id, health in results.items()
    ]
    lines = table_lines(("ID", "STATUS", "HEALTH", "WHY"), rows)
    return print_answer(options, answer, *lines, good=not any(map(_is_unwell, results.values())))


def _is_unwell(health: Mapping[str, Any]) -> bool:
    """Waiting for a scan or switched off is as wanted; a ban or a wrong setting is not."""
    if health["verdict"] in ("degraded", "stuck", "corrupted"):
        return True
    reason = REASONS.get(health["reason"])
    return reason is not None and reason.hopeless and reason.code != "qr_idle"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {word}" for word, count in sorted(counts.items())) or "-"
