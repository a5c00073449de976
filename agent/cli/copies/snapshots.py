"""Snapshots of sessions, and restoring one."""

import argparse
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

from agent.cli.client import Client
from agent.cli.command import Subparsers, add_instance_command, client_of, wants_json
from agent.cli.copies.transfer import LONGEST
from agent.cli.terminal.answer import print_answer, print_list
from agent.cli.terminal.progress import of_bytes, with_progress
from agent.cli.terminal.show import moment
from agent.errors import WaError

Result = TypeVar("Result")


def add(commands: Subparsers) -> None:
    add_instance_command(commands, "snapshot", snapshot, "copy a session now")
    add_instance_command(commands, "snapshots", list_snapshots, "list a session's copies")
    summary = "replace a session by a snapshot; the trash keeps the replaced session"
    parser = add_instance_command(commands, "restore", restore, summary, "20260115T103045Z-12")
    parser.add_argument("name", metavar="NAME", help="as `snapshots` shows it")
    parser.add_argument(
        "--force",
        action="store_true",
        help="also replace a newer session or use a damaged snapshot",
    )


def snapshot(options: argparse.Namespace) -> int:
    made = _post(options, f"copying {options.id}", "snapshots")
    done = f"snapshot {made['name']} of {options.id}: {_contents(made)}"
    return print_answer(options, made, done)


def list_snapshots(options: argparse.Namespace) -> int:
    return print_list(
        options,
        client_of(options).get(f"/api/instance/{options.id}/snapshots")["snapshots"],
        ("NAME", "TAKEN", "CONTENTS", "WHY"),
        lambda copy: (
            copy["name"],
            moment(copy.get("taken")),
            _contents(copy),
            copy.get("why", ""),
        ),
        nothing=f"no snapshots of {options.id}",
    )


def restore(options: argparse.Namespace) -> int:
    path = f"snapshots/{quote(options.name, safe='')}/restore"
    answer = _post(options, f"restoring {options.id}", path, {"force": options.force})
    taken, trash = moment(answer["snapshot"]["taken"]), answer["trash"]
    return print_answer(
        options,
        answer,
        f"{options.id} is as it was at {taken}",
        f"the trash has the old session as {trash}" if trash else "",
    )


def _post(options: argparse.Namespace, words: str, path: str, body: Any = None) -> dict[str, Any]:
    """A request that may take minutes."""
    path = f"/api/instance/{options.id}/{path}"
    return wait_for_copy(
        options,
        words,
        lambda client: client.post(path, body, LONGEST),
    )


def wait_for_copy(
    options: argparse.Namespace,
    words: str,
    work: Callable[[Client], Result],
    look: Callable[[], str] = str,
) -> Result:
    client = client_of(options)

    def ask_how_far() -> str:
        try:
            copying = client.get(f"/api/instance/{options.id}/snapshots")["under_way"]
        except (WaError, OSError):
            copying = None  # the work itself reports the error
        return of_bytes(int(copying["done"]), int(copying["total"])) if copying else ""

    return with_progress(
        words, lambda: work(client), lambda: look() or ask_how_far(), quiet=wants_json(options)
    )


def _contents(copy: dict[str, Any]) -> str:
    if copy["problem"]:
        return str(copy["problem"])
    kind = "backup, " if copy["backup"] else ""
    return f"{kind}{copy['state']}, {copy['files']} files, {copy['bytes']} bytes"
