"""Copies of sessions: snapshots, restoring one, and archives out."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from agent.cli.client import Client
from agent.cli.command import Subparsers, add_instance_command, client_of, wants_json
from agent.cli.copies.imports import OURS
from agent.cli.copies.transfer import LONGEST, check_target, download
from agent.cli.terminal.answer import print_answer, print_list
from agent.cli.terminal.progress import of_bytes, with_progress
from agent.cli.terminal.show import moment
from agent.errors import WaError
from agent.scratch import scratch
from agent.wing import modules_of

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
    summary = "write a session, with its keys, into one file"
    parser = add_instance_command(commands, "export", export, summary, "sales.tar.gz")
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="the archive to write; with --to the folder"
    )
    parser.add_argument(
        "--to",
        dest="target",
        choices=(OURS, *_targets()),
        default=OURS,
        help="program to write for",
    )
    parser.add_argument(
        "--snapshot",
        metavar="NAME",
        default="",
        help="export this snapshot, not the present session",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace the file; with --to move the folder aside"
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


def export(options: argparse.Namespace) -> int:
    last = f"stop {options.id} here before the copy runs anywhere else"
    if options.target != OURS:
        folder = _export_to(options)
        return print_answer(options, {"folder": str(folder)}, f"{folder} written; {last}")
    check_target(options.file, force=options.force)
    sha256 = _download(options, options.file)
    size = options.file.stat().st_size
    written = {"file": str(options.file), "bytes": size, "sha256": sha256}
    return print_answer(options, written, f"{sha256}  {options.file}", f"{size} bytes; {last}")


def _export_to(options: argparse.Namespace) -> Path:
    with scratch() as folder:
        archive = folder / "archive"
        _download(options, archive)
        unpack = _targets()[options.target]
        return unpack(archive, options.file, options.id, options.force)


def _targets() -> Mapping[str, Callable[[Path, Path, str, bool], Path]]:
    """How our archive is written into a folder for another program, by the program's name."""
    return {
        name: unpack for other in modules_of("exports") for name, unpack in other.TARGETS.items()
    }


def _download(options: argparse.Namespace, target: Path) -> str:
    body = {"snapshot": options.snapshot} if options.snapshot else {}
    path = f"/api/instance/{options.id}/export"
    received = [0]

    def count(more: int) -> None:
        received[0] += more

    return _wait(
        options,
        f"exporting {options.id}",
        lambda client: download(client, path, body, target, count),
        lambda: of_bytes(received[0], 0),
    )


def _post(options: argparse.Namespace, words: str, path: str, body: Any = None) -> dict[str, Any]:
    """A request that may take minutes."""
    path = f"/api/instance/{options.id}/{path}"
    return _wait(
        options,
        words,
        lambda client: client.post(path, body, LONGEST),
    )


def _wait(
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
