"""How the agent and its instances are."""

import argparse
from collections.abc import Mapping
from typing import Any

from agent.cli.command import Subparsers, add_command, client_of, instance_id, wants_json
from agent.cli.terminal.show import moment, print_json, print_pairs, print_table
from agent.core.reasons import REASONS


def add(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "health",
        health,
        "show the agent's health, or check instances now; exit status 1 when not well",
        "wa-agent health sales",
    )
    parser.add_argument(
        "id", metavar="ID", nargs="?", type=instance_id, help="check this instance now"
    )
    parser.add_argument("--check", action="store_true", help="check every instance now")


def health(options: argparse.Namespace) -> int:
    if options.id is not None:
        return _one(options)
    if options.check:
        return _every(options)
    found = client_of(options).get("/api/health")
    if wants_json(options):
        print_json(found)
    else:
        agent, fleet = found["agent"], found["instances"]
        restoring = agent["restoring"]
        print_pairs(
            {
                "agent": found["status"].replace("_", " "),
                **({"in trouble": ", ".join(found["in_trouble"])} if found["in_trouble"] else {}),
                "version": agent["version"],
                "host": agent["host"],
                "started": moment(agent["started"]),
                "restored": f"{restoring['done']} of {restoring['total']}",
                "instances": f"{fleet['total']}, enabled {fleet['enabled']}",
                "by status": _counts(fleet["by_status"]),
                "by verdict": _counts(fleet["by_verdict"]),
            }
        )
    return 0 if found["status"] == "ok" else 1


def _one(options: argparse.Namespace) -> int:
    found = client_of(options).post(f"/api/instance/{options.id}/health")
    if wants_json(options):
        print_json(found)
    else:
        print_pairs({options.id: f"{found['verdict']}: {found['sentence']}"})
    return 0 if found["healthy"] else 1


def _every(options: argparse.Namespace) -> int:
    found = client_of(options).post("/api/health/check")
    if wants_json(options):
        print_json(found)
    else:
        print_table(
            ("ID", "STATUS", "HEALTH", "WHY"),
            [
                (id, one["state"], one["verdict"], one["sentence"])
                for id, one in found["results"].items()
            ],
        )
    return 1 if any(_is_unwell(one) for one in found["results"].values()) else 0


def _is_unwell(one: Mapping[str, Any]) -> bool:
    """Waiting for a scan or switched off is as wanted; a ban or a wrong setting is not."""
    if one["verdict"] in ("degraded", "stuck", "corrupted"):
        return True
    reason = REASONS.get(one["reason"])
    return reason is not None and reason.hopeless and reason.code != "qr_idle"


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{count} {word}" for word, count in sorted(found.items())) or "-"
