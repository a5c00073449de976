"""Retired sessions: list them, bring one back."""

import argparse
from urllib.parse import quote

from agent.cli.command import Subparsers, add_command, add_group, client_of
from agent.cli.terminal.answer import print_answer, print_list
from agent.cli.terminal.show import moment


def add(commands: Subparsers) -> None:
    among = add_group(commands, "trash", "retired sessions", "list")
    add_command(among, "list", list_trash, "list retired sessions")
    summary = "bring a retired session back"
    parser = add_command(among, "restore", restore, summary, "sales.20260115T103045Z-4")
    parser.add_argument("name", metavar="NAME", help="as `trash list` shows it")


def list_trash(options: argparse.Namespace) -> int:
    return print_list(
        options,
        client_of(options).get("/api/trash")["trash"],
        ("NAME", "ID", "RETIRED"),
        lambda retired: (retired["name"], retired["id"], moment(retired["retired"])),
        nothing="the trash is empty",
    )


def restore(options: argparse.Namespace) -> int:
    path = f"/api/trash/{quote(options.name, safe='')}/restore"
    instance = client_of(options).post(path)
    state = "enabled" if instance["enabled"] else "disabled"
    return print_answer(options, instance, f"{instance['id']} is back, {state}")
