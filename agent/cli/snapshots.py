"""Copies of sessions: snapshots, the trash, and what repairs removed from a session on a backend;
each is listed and put back."""

import argparse
from typing import Any
from urllib.parse import quote

from agent.cli.client import LONGEST
from agent.cli.command import (
    Subparsers,
    Words,
    add_command,
    add_group,
    add_instance_command,
    client_of,
)
from agent.cli.session import TO_THE_END
from agent.cli.terminal import moment, print_answer, print_list, progress


def add(commands: Subparsers) -> None:
    add_instance_command(commands, "snapshot", snapshot)
    add_instance_command(commands, "snapshots", list_snapshots)
    words: Words = {
        "NAME": "as `snapshots` shows it",
        "--force": "also replace a newer session or use a damaged snapshot",
    }
    add_instance_command(commands, "restore", restore, example="20260115T103045Z-12", words=words)

    parser = add_command(commands, "trash", list_trash)
    among = parser.add_subparsers(metavar="COMMAND", required=False)
    add_command(among, "list", list_trash)
    words, example = {"NAME": "as `trash list` shows it"}, "sales.20260115T103045Z-4"
    add_command(among, "restore", untrash, example=example, words=words)

    summary = "files and keys that repairs removed from a session on a backend"
    among = add_group(commands, "removed", summary, "list sales")
    add_instance_command(among, "list", list_removed)
    words = {"NAME": "as `removed list` shows it"}
    add_instance_command(among, "restore", put_back, example="20260115T103045Z", words=words)


def snapshot(options: argparse.Namespace) -> int:
    """Copy a session now."""
    made = _post(options, f"copying {options.id}", "snapshots")
    done = f"snapshot {made['name']} of {options.id}: {_contents(made)}"
    return print_answer(options, made, done)


def list_snapshots(options: argparse.Namespace) -> int:
    """List a session's copies."""
    return print_list(
        options,
        client_of(options).get(f"/api/instance/{options.id}/snapshots")["snapshots"],
        {"NAME": "name", "TAKEN": "taken", "CONTENTS": _contents, "WHY": "why"},
        nothing=f"no snapshots of {options.id}",
    )


def restore(options: argparse.Namespace) -> int:
    """Replace a session by a snapshot; the trash keeps the replaced session."""
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
    with progress(options, words):
        return client_of(options).post(path, body, LONGEST)


def _contents(copy: dict[str, Any]) -> str:
    if copy["problem"]:
        return str(copy["problem"])
    kind = "backup, " if copy["backup"] else ""
    return f"{kind}{copy['state']}, {copy['files']} files, {copy['bytes']} bytes"


def list_trash(options: argparse.Namespace) -> int:
    """List retired sessions."""
    return print_list(
        options,
        client_of(options).get("/api/trash")["trash"],
        {"NAME": "name", "ID": "id", "RETIRED": "retired"},
        nothing="the trash is empty",
    )


def untrash(options: argparse.Namespace) -> int:
    """Bring a retired session back."""
    path = f"/api/trash/{quote(options.name, safe='')}/restore"
    instance = client_of(options).post(path)
    state = "enabled" if instance["enabled"] else "disabled"
    return print_answer(options, instance, f"{instance['id']} is back, {state}")


def list_removed(options: argparse.Namespace) -> int:
    """List what repairs removed."""
    path = f"/api/instance/{options.id}/removed"
    return print_list(
        options,
        client_of(options).get(path + TO_THE_END, seconds=LONGEST)["removed"],
        {
            **{"NAME": "name", "REMOVED": "removed", "CONTENTS": _removed},
            **{"STATE": "state", "WHY": "why"},
        },
        nothing=f"no repair removed files or keys of {options.id}",
    )


def put_back(options: argparse.Namespace) -> int:
    """Put removed files and keys back; the session is down meanwhile."""
    path = f"removed/{quote(options.name, safe='')}/restore{TO_THE_END}"
    answer = _post(options, f"putting {options.name} of {options.id} back", path)
    return print_answer(
        options,
        answer,
        f"{_removed(answer['removed'])} of {options.id} put back",
        f"{options.id} is {answer['instance']['connection_status']}",
    )


def _removed(row: dict[str, Any]) -> str:
    folder = "the whole folder, " if row["whole"] else ""
    return f"{folder}{row['files']} files, {row['keys']} keys in Redis"
