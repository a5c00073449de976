"""What a session has on its backend: what repairs put aside of it, and its settings there."""

import argparse
import json
from typing import Any
from urllib.parse import quote

from agent.cli.command import Subparsers, add_command, add_group, add_id, client_of, wants_json
from agent.cli.sessions.instances import add_settings, parse_settings
from agent.cli.terminal.listing import print_list
from agent.cli.terminal.progress import with_progress
from agent.cli.terminal.show import moment, print_json, print_pairs

_SECONDS = 130.0
_LONG = 240.0
"""The agent gives a server 150 s for it."""


def add(commands: Subparsers) -> None:
    summary = "files and keys that repairs removed from a session on a backend"
    among = add_group(commands, "removed", summary, "wa-agent removed list sales")
    parser = add_command(
        among, "list", list_removed, "list what repairs removed", "wa-agent removed list sales"
    )
    add_id(parser)
    parser = add_command(
        among,
        "restore",
        restore,
        "put removed files and keys back; the session is down meanwhile",
        "wa-agent removed restore sales 20260115T103045Z",
    )
    add_id(parser)
    parser.add_argument("name", metavar="NAME", help="as `removed list` shows it")
    parser = add_command(
        commands,
        "remote-settings",
        settings,
        "show or change a session's settings on its backend",
        "wa-agent remote-settings sales --set rejectCall=true",
    )
    add_id(parser)
    add_settings(parser)


def list_removed(options: argparse.Namespace) -> int:
    client = client_of(options)
    path = f"/api/instance/{options.id}/removed"
    found = client.request("GET", path, seconds=_SECONDS).json()["removed"]
    print_list(
        options,
        found,
        ("NAME", "REMOVED", "CONTENTS", "STATE", "WHY"),
        lambda one: (
            one["name"],
            moment(one["removed"]),
            _contents(one),
            one["state"],
            one["why"],
        ),
        nothing=f"no repair removed anything of {options.id}",
    )
    return 0


def restore(options: argparse.Namespace) -> int:
    client = client_of(options)
    path = f"/api/instance/{options.id}/removed/{quote(options.name, safe='')}/restore"
    answer = with_progress(
        f"putting {options.name} of {options.id} back",
        lambda: client.request("POST", path, seconds=_LONG),
        lambda: "",
        quiet=wants_json(options),
    )
    found = answer.json()
    if wants_json(options):
        print_json(found)
    else:
        print(f"{_contents(found['removed'])} of {options.id} put back")
        print(f"{options.id} is {found['instance']['connection_status']}")
    return 0


def settings(options: argparse.Namespace) -> int:
    client, path = client_of(options), f"/api/instance/{options.id}/remote-settings"
    changes = parse_settings(options.set)
    if changes:
        answer = client.request("PATCH", path, body={"settings": changes}, seconds=_SECONDS)
    else:
        answer = client.request("GET", path, seconds=_SECONDS)
    found = answer.json()["settings"]
    if wants_json(options):
        print_json(found)
    else:
        print_pairs({name: json.dumps(value) for name, value in found.items()})
    return 0


def _contents(one: dict[str, Any]) -> str:
    if one["whole"]:
        return f"the whole folder, {one['files']} files, {one['keys']} keys in Redis"
    return f"{one['files']} files, {one['keys']} keys in Redis"
