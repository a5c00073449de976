"""`wa-agent list` and `wa-agent show`."""

import argparse
import json
from typing import Any

from agent.cli.command import Subparsers, Words, add_command, add_instance_command, client_of
from agent.cli.terminal import (
    Columns,
    duration,
    moment,
    next_try,
    pair_lines,
    print_answer,
    print_list,
    size,
)
from agent.errors import InvalidRequest


def add(commands: Subparsers) -> None:
    more: dict[str, Any] = {"action": "append"}
    words: Words = {
        "--status STATUS": ("only this status", more),
        "--verdict VERDICT": ("only this verdict", more),
        "--engine ENGINE": "only this engine",
        "--backend NAME": "only instances on this backend",
        "--enabled WORD": (
            "true or false: only enabled or only disabled instances",
            {"choices": ("true", "false")},
        ),
        "--ids": "print only the ids",
        "--trouble": "instead what is wrong now, with advice; exit status 1 if anything is",
    }
    summary, example = "list the instances", "--status CONNECTED"
    add_command(commands, "list", list_instances, summary, example, words=words)
    add_instance_command(commands, "show", show, "show everything about an instance")


def list_instances(options: argparse.Namespace) -> int:
    names = ("status", "verdict", "engine", "backend", "enabled")
    query = {name: getattr(options, name) for name in names if getattr(options, name)}
    if options.trouble:
        if query or options.ids:
            raise InvalidRequest("cannot list troubles: --trouble goes with no other option")
        return _list_troubles(options)
    instances = list(client_of(options).instances(**query))
    if options.ids:
        return print_answer(options, instances, *(str(instance["id"]) for instance in instances))
    return print_list(options, instances, COLUMNS, nothing=NOTHING)


def _list_troubles(options: argparse.Namespace) -> int:
    told = client_of(options).get("/api/troubles")["troubles"]
    lines = []
    for one in told:
        head = f"{one['severity']} {one['kind']} since {moment(one['since'])}"
        lines += pair_lines({head: one["sentence"], "": one["advice"]})
    return print_answer(options, {"troubles": told}, *lines or ["nothing is wrong"], good=not told)


def _why(instance: dict[str, Any]) -> str:
    parts = (instance["sentence"], next_try(instance), instance["snapshot_failure"])
    return "; ".join(filter(None, parts))


def _enabled(instance: dict[str, Any]) -> str:
    word, override = "yes" if instance["enabled"] else "no", instance["override"]
    return word if override == "none" else f"{word}, {override}"


COLUMNS: Columns = {
    **{"ID": "id", "ENGINE": "engine", "STATUS": "connection_status"},
    "HEALTH": lambda instance: instance["health"]["verdict"],
    "ENABLED": _enabled,
    "UPTIME": lambda instance: duration(instance["uptime_seconds"]),
    "MEMORY": lambda instance: size(instance["memory_bytes"]),
    "WHY": _why,
}
NOTHING = "no instances"


def show(options: argparse.Namespace) -> int:
    details = client_of(options).get(f"/api/instance/{options.id}/details")
    lines = pair_lines(_pairs(details))
    for event in reversed(details["events"]):
        lines += pair_lines({moment(event["time"]): f"[{event['kind']}] {event['sentence']}"})
    return print_answer(options, details, *lines)


def _pairs(details: dict[str, Any]) -> dict[str, object]:
    health, unit, first = details["health"], details["unit"], details["first_messages"]
    place = {"backend": details["backend"], "remote": details["remote"]}
    return {
        "id": details["id"],
        "engine": details["engine"],
        **(place if details["backend"] else {}),
        "enabled": _enabled(details),
        "status": f"{details['connection_status']} since {moment(details['since'])}",
        "why": details["sentence"] or "-",
        "health": f"{health['verdict']}: {health['sentence']}",
        "account": details["account"] or ("paired" if details["paired"] else "not paired"),
        **({"passkey": "needed to link the account"} if details["needs_passkey"] else {}),
        **({"first messages": first["sentence"]} if first else {}),
        "uptime": duration(details["uptime_seconds"]),
        "worker": f"{unit['state']}, pid {unit['main_pid'] or '-'}, {unit['status_text']}",
        "memory": size(details["memory_bytes"]),
        "attempts": details["attempts"],
        "next attempt": moment(details["next_attempt"]),
        "restarts": _counts(details["restarts_by_reason"]),
        "reconnects": _counts(details["reconnects_by_reason"]),
        "messages": _counts(details["messages"]),
        "settings": json.dumps(details["settings"]),
        "created": moment(details["created"]),
    }


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"
