"""Retired sessions: look at them, bring one back."""

import argparse

from agent.cli.command import Subparsers, add_command, add_group, client_of, wants_json
from agent.cli.terminal.listing import print_list
from agent.cli.terminal.show import moment, print_json


def add(commands: Subparsers) -> None:
    among = add_group(commands, "trash", "retired sessions", "wa-agent trash list")
    add_command(among, "list", list_trash, "list retired sessions", "wa-agent trash list")
    parser = add_command(
        among,
        "restore",
        restore,
        "bring a retired session back",
        "wa-agent trash restore sales.20260115T103045Z",
    )
    parser.add_argument("name", metavar="NAME", help="as `trash list` shows it")


def list_trash(options: argparse.Namespace) -> int:
    found = client_of(options).get("/api/trash")["trash"]
    print_list(
        options,
        found,
        ("NAME", "ID", "RETIRED"),
        lambda one: (one["name"], one["id"], moment(one["retired"])),
        nothing="the trash is empty",
    )
    return 0


def restore(options: argparse.Namespace) -> int:
    from urllib.parse import quote

    found = client_of(options).post(f"/api/trash/{quote(options.name, safe='')}/restore")
    if wants_json(options):
        print_json(found)
    else:
        print(f"{found['id']} is back, {'enabled' if found['enabled'] else 'disabled'}")
    return 0
