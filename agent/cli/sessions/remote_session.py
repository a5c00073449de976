"""A session on its backend: the files and keys that repairs removed, and its settings there."""

import argparse
from typing import Any
from urllib.parse import quote

from agent.cli.command import Subparsers, add_group, add_instance_command, client_of, wants_json
from agent.cli.sessions.repair_round import TO_THE_END
from agent.cli.sessions.settings import add_settings, parse_settings, setting_lines
from agent.cli.terminal.answer import print_answer, print_list
from agent.cli.terminal.progress import with_progress
from agent.cli.terminal.show import moment

_SECONDS = 130.0
_RESTORE_SECONDS = 240.0
"""The agent gives a server 150 to put files back."""


def add(commands: Subparsers) -> None:
    summary = "files and keys that repairs removed from a session on a backend"
    among = add_group(commands, "removed", summary, "list sales")
    add_instance_command(among, "list", list_removed, "list what repairs removed")
    summary = "put removed files and keys back; the session is down meanwhile"
    parser = add_instance_command(among, "restore", restore, summary, "20260115T103045Z")
    parser.add_argument("name", metavar="NAME", help="as `removed list` shows it")
    summary = "show or change a session's settings on its backend"
    add_settings(
        add_instance_command(
            commands, "remote-settings", settings, summary, "--set rejectCall=true"
        )
    )


def list_removed(options: argparse.Namespace) -> int:
    path = f"/api/instance/{options.id}/removed"
    return print_list(
        options,
        client_of(options).get(path + TO_THE_END, seconds=_SECONDS)["removed"],
        ("NAME", "REMOVED", "CONTENTS", "STATE", "WHY"),
        lambda row: (
            row["name"],
            moment(row["removed"]),
            _contents(row),
            row["state"],
            row["why"],
        ),
        nothing=f"no repair removed files or keys of {options.id}",
    )


def restore(options: argparse.Namespace) -> int:
    client = client_of(options)
    path = f"/api/instance/{options.id}/removed/{quote(options.name, safe='')}/restore"
    answer = with_progress(
        f"putting {options.name} of {options.id} back",
        lambda: client.post(path + TO_THE_END, seconds=_RESTORE_SECONDS),
        quiet=wants_json(options),
    )
    return print_answer(
        options,
        answer,
        f"{_contents(answer['removed'])} of {options.id} put back",
        f"{options.id} is {answer['instance']['connection_status']}",
    )


def settings(options: argparse.Namespace) -> int:
    client, path = client_of(options), f"/api/instance/{options.id}/remote-settings{TO_THE_END}"
    changes = parse_settings(options.set)
    method, body = ("PATCH", {"settings": changes}) if changes else ("GET", None)
    present = client.request(method, path, body=body, seconds=_SECONDS).json()["settings"]
    return print_answer(options, present, *setting_lines(present))


def _contents(row: dict[str, Any]) -> str:
    folder = "the whole folder, " if row["whole"] else ""
    return f"{folder}{row['files']} files, {row['keys']} keys in Redis"
