"""Copies of sessions: snapshots, going back to one, and archives out."""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from agent.cli.client import Client
from agent.cli.command import Subparsers, add_command, add_id, client_of, wants_json
from agent.cli.copies.sources import OURS, TARGETS
from agent.cli.copies.transfer import ask_long, check_target, download
from agent.cli.terminal.listing import print_list
from agent.cli.terminal.progress import of_bytes, with_progress
from agent.cli.terminal.show import moment, print_json
from agent.errors import WaError

Result = TypeVar("Result")


def add(commands: Subparsers) -> None:
    parser = add_command(
        commands, "snapshot", snapshot, "copy a session now", "wa-agent snapshot sales"
    )
    add_id(parser)
    parser = add_command(
        commands, "snapshots", list_snapshots, "list a session's copies", "wa-agent snapshots sales"
    )
    add_id(parser)
    parser = add_command(
        commands,
        "restore",
        restore,
        "replace a session by a snapshot; the trash keeps the replaced session",
        "wa-agent restore sales 20260115T103045Z",
    )
    add_id(parser)
    parser.add_argument("name", metavar="NAME", help="as `snapshots` shows it")
    parser.add_argument(
        "--force",
        action="store_true",
        help="also replace a newer session or use a damaged snapshot",
    )
    _add_archives(commands)


def _add_archives(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "export",
        export,
        "write a session, with its keys, into one file",
        "wa-agent export sales sales.tar.gz",
    )
    add_id(parser)
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="the archive to write; with --to the folder"
    )
    parser.add_argument(
        "--to", dest="target", choices=(OURS, *TARGETS), default=OURS, help="program to write for"
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
    path = f"/api/instance/{options.id}/snapshots"
    found = _wait(options, f"copying {options.id}", lambda client: ask_long(client, "POST", path))
    if wants_json(options):
        print_json(found)
    else:
        print(f"snapshot {found['name']} of {options.id}: {_contents(found)}")
    return 0


def list_snapshots(options: argparse.Namespace) -> int:
    found = client_of(options).get(f"/api/instance/{options.id}/snapshots")["snapshots"]
    print_list(
        options,
        found,
        ("NAME", "TAKEN", "CONTENTS", "WHY"),
        lambda one: (
            one["name"],
            moment(one.get("taken")),
            _contents(one),
            one.get("why", ""),
        ),
        nothing=f"no snapshots of {options.id}",
    )
    return 0


def restore(options: argparse.Namespace) -> int:
    name = quote(options.name, safe="")
    path = f"/api/instance/{options.id}/snapshots/{name}/restore"
    body = {"force": options.force}
    found = _wait(
        options, f"restoring {options.id}", lambda client: ask_long(client, "POST", path, body)
    )
    if wants_json(options):
        print_json(found)
    else:
        print(f"{options.id} is as it was at {moment(found['snapshot']['taken'])}")
        if found["trash"]:
            print(f"the trash has the old session as {found['trash']}")
    return 0


def export(options: argparse.Namespace) -> int:
    if options.target != OURS:
        return _export_to(options)
    check_target(options.file, force=options.force)
    sha256 = _download(options, options.file)
    size = options.file.stat().st_size
    if wants_json(options):
        print_json({"file": str(options.file), "bytes": size, "sha256": sha256})
    else:
        print(f"{sha256}  {options.file}")
        print(f"{size} bytes; stop {options.id} here before the copy runs anywhere else")
    return 0


def _export_to(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="wa-agent-") as folder:
        archive = Path(folder) / "archive"
        _download(options, archive)
        made = TARGETS[options.target](archive, options.file, options.id, options.force)
    if wants_json(options):
        print_json({"folder": str(made)})
    else:
        print(f"{made} written; stop {options.id} here before the copy runs anywhere else")
    return 0


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


def _wait(
    options: argparse.Namespace,
    words: str,
    work: Callable[[Client], Result],
    look: Callable[[], str] | None = None,
) -> Result:
    client = client_of(options)

    def ask_how_it_goes() -> str:
        try:
            found = client.get(f"/api/instance/{options.id}/snapshots")["under_way"]
        except (WaError, OSError):
            found = None  # what matters is what the work itself says
        return of_bytes(int(found["done"]), int(found["total"])) if found else ""

    def both() -> str:
        return (look() if look is not None else "") or (ask_how_it_goes() if options.id else "")

    return with_progress(words, lambda: work(client), both, quiet=wants_json(options))


def _contents(found: dict[str, Any]) -> str:
    if found["problem"]:
        return str(found["problem"])
    kind = "backup, " if found["backup"] else ""
    return f"{kind}{found['state']}, {found['files']} files, {found['bytes']} bytes"
