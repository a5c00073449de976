"""`import`: archives of ours as instances; what else it reads, the wings bring."""

import argparse
from dataclasses import replace
from pathlib import Path

from agent.cli.command import Subparsers, add_command, instance_id
from agent.cli.copies.arrivals import OURS, Planned, finish, id_for, show_plan
from agent.cli.copies.sending import Sending
from agent.cli.copies.transfer import open_source
from agent.errors import InvalidRequest, WaError
from agent.vault.archives.found import FoundSession
from agent.vault.archives.scratch import scratch
from agent.wing import modules_of


def add(commands: Subparsers) -> None:
    others = tuple(modules_of("imports"))
    summary = "make an instance from an archive" + "".join(other.ALSO for other in others)
    parser = add_command(commands, "import", import_sessions, summary, "sales.tar.gz --enable")
    places = "an archive of wa-agent" + "".join(other.PLACES for other in others)
    parser.add_argument("source", metavar="SOURCE", help=places)
    parser.add_argument("id", metavar="ID", type=instance_id, nargs="?", help="id of the instance")
    for other in others:
        other.add_options(parser)
    parser.add_argument("--dry-run", action="store_true", help="list the sessions, import nothing")
    parser.add_argument("--replace", action="store_true", help="retire that instance first")
    parser.add_argument("--enable", action="store_true", help="run it at once")
    parser.add_argument(
        "--wait",
        type=float,
        metavar="SECONDS",
        help="with --enable: wait until it is connected and its first messages were read;"
        " exit status 75 when it is not connected in time, 4 when messages could not be read",
    )


def import_sessions(options: argparse.Namespace) -> int:
    if options.wait is not None and not options.enable:
        raise InvalidRequest(
            "cannot wait for what does not run: --wait needs --enable", field="wait"
        )
    # A word is its own module's, and no file's: those first.
    for other in sorted(modules_of("imports"), key=lambda its: not hasattr(its, "SOURCE")):
        status: int | None = other.import_sessions(options)
        if status is not None:
            return status
    path = Path(options.source)
    if options.dry_run:
        session = look_at_archive(path)
        return show_plan(options, [Planned(session, id_for(session, options.id))])
    sending = Sending(options)
    with open_source(path, "archive") as archive:
        return finish(options, sending.send(archive, options.id, path.name))


def look_at_archive(path: Path) -> FoundSession:
    """All of it is read and checked, as at an import."""
    from agent.core.model import SessionFiles
    from agent.engines.catalog import file_rules
    from agent.vault.archives.unpack import unpack_apart
    from agent.vault.archives.untar import Limits

    session = FoundSession(OURS, path.name)
    with scratch() as folder, open_source(path, "archive") as raw:
        try:
            arrived = unpack_apart(folder, raw, Limits())
        except WaError as error:
            return replace(session, problem=str(error), code=error.code)
    manifest = arrived.manifest
    paths = [file.path for file in manifest.listing.files]
    lacking = file_rules(manifest.engine).lacks(paths)
    problem, code = "", ""
    if manifest.paired and arrived.state is not SessionFiles.WHOLE:
        problem, code = f"its session is {arrived.state} {arrived.problem}".rstrip(), "not_good"
    elif manifest.paired and lacking:
        problem, code = lacking, "no_pre_keys"
    return FoundSession(
        program=f"{OURS} ({manifest.engine})",
        name=manifest.id,
        account=manifest.account,
        written=manifest.taken_wall,
        pre_keys=sum(path.startswith("pre-key-") for path in paths),
        records=len(paths),
        problem=problem,
        code=code,
    )
