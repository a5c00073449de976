"""`export`: a session as an archive of ours, or as another program keeps it, which wings bring."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from agent.cli.command import Subparsers, add_instance_command
from agent.cli.copies.arrivals import OURS
from agent.cli.copies.snapshots import wait_for_copy
from agent.cli.copies.transfer import check_target, download
from agent.cli.terminal.answer import print_answer
from agent.cli.terminal.progress import of_bytes
from agent.vault.archives.scratch import scratch
from agent.wing import modules_of


def add(commands: Subparsers) -> None:
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

    return wait_for_copy(
        options,
        f"exporting {options.id}",
        lambda client: download(client, path, body, target, count),
        lambda: of_bytes(received[0], 0),
    )
