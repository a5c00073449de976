"""`import`: our archives, and the paired sessions of other programs, as instances of this agent."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlencode

from agent.cli.command import Subparsers, add_command, client_of, instance_id, wants_json
from agent.cli.copies.sources import OURS, SOURCES, pack_found
from agent.cli.copies.transfer import upload
from agent.cli.terminal.listing import print_list
from agent.cli.terminal.progress import of_bytes, with_progress
from agent.cli.terminal.show import print_json
from agent.core.model import InstanceId, parse_instance_id
from agent.errors import InvalidRequest, Refused, WaError

if TYPE_CHECKING:
    from agent.moving.session import FoundSession

AUTO, BAILEYS = "auto", "baileys"
_GZIP = b"\x1f\x8b"


def add(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "import",
        import_sessions,
        "make instances from an archive or from another program's paired sessions",
        "wa-agent import /srv/bot/auth_info_baileys sales --enable",
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="an archive of ours, a folder, a database file or dump, or the address of a database",
    )
    parser.add_argument("id", metavar="ID", type=instance_id, nargs="?", help="id of the instance")
    parser.add_argument(
        "--from",
        dest="program",
        choices=(AUTO, *SOURCES, BAILEYS),
        default=AUTO,
        help="the program that wrote it; auto recognises it",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what is there, import nothing")
    parser.add_argument("--all", action="store_true", help="import every session that was found")
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        default=[],
        help="import this session; repeatable",
    )
    parser.add_argument(
        "--keys",
        metavar="PLACE",
        default="",
        help="where a database's sessions keep their keys: a folder or a redis:// address",
    )
    parser.add_argument(
        "--pattern",
        default="sessions:{id}:*",
        help="names of whaticket's keys in Redis (default %(default)s)",
    )
    parser.add_argument(
        "--stopped",
        action="store_true",
        help="the sessions' own program is stopped, whatever seems to use the source",
    )
    parser.add_argument("--replace", action="store_true", help="retire that instance first")
    parser.add_argument("--enable", action="store_true", help="run it at once")


def import_sessions(options: argparse.Namespace) -> int:
    if program := _one_session(options):
        with SOURCES[program](Path(options.source), options.id) as archive:
            told = _send(options, archive, options.id, Path(options.source).name)
        _print_imported(options, told)
        return 0
    found = _found(options)
    plan = [Planned(session, _id_for(session, options)) for session in found]
    if options.dry_run:
        _print_plan(options, plan)
        return 4 if any(one.session.problem for one in plan) else 0
    return _import(options, _chosen(options, plan))


@dataclass(slots=True)
class Planned:
    session: "FoundSession"
    id: str
    result: str = ""


def _one_session(options: argparse.Namespace) -> str:
    """The way of an archive or a profile, which are one session each; "" for everything else."""
    if options.program in SOURCES:
        return str(options.program)
    if options.program == BAILEYS or "://" in options.source:
        return ""
    from agent.engines.web.files import has_pairing
    from agent.moving.recognise import head_of

    path = Path(options.source)
    if path.is_dir():
        try:
            profiles = [path, *(each for each in path.iterdir() if each.name.startswith("session"))]
            return "wwebjs" if any(has_pairing(profile) for profile in profiles) else ""
        except OSError as error:
            raise InvalidRequest(f"cannot read {path}: {error.strerror}", field="source") from error
    return OURS if head_of(path).startswith(_GZIP) else ""


def _found(options: argparse.Namespace) -> "list[FoundSession]":
    from agent.moving.recognise import Hints, find_sessions, shown

    hints = Hints(keys=options.keys, pattern=options.pattern)
    words = f"reading {shown(options.source)}"
    found = with_progress(
        words, lambda: find_sessions(options.source, hints), str, quiet=wants_json(options)
    )
    if options.stopped:
        found = [
            replace(one, problem="", code="") if one.code == "in_use" else one for one in found
        ]
    if missing := set(options.only) - {one.name for one in found}:
        raise InvalidRequest(
            f"cannot import {min(missing)}: the source has {', '.join(o.name for o in found[:20])}",
            field="only",
            code="no_session",
        )
    return [one for one in found if not options.only or one.name in options.only]


def _id_for(session: "FoundSession", options: argparse.Namespace) -> str:
    """The id that was given, or the source's name in the letters of an id."""
    if options.id:
        return str(options.id)
    name = "".join(letter if letter.isalnum() else "-" for letter in session.name.lower())
    ascii_name = name.encode("ascii", "ignore").decode().strip("-")
    try:
        return str(parse_instance_id(ascii_name))
    except InvalidRequest:
        return ""


def _chosen(options: argparse.Namespace, plan: Sequence[Planned]) -> Sequence[Planned]:
    """One session goes by itself; more are named, so that none is moved by mistake."""
    if len(plan) == 1:
        if problem := plan[0].session.problem:
            raise Refused(
                f"cannot import {plan[0].session.name}: {problem}", code=plan[0].session.code
            )
    elif options.id or not (options.all or options.only):
        _print_plan(options, plan)
        raise Refused(
            f"cannot import {len(plan)} sessions at once: add --all, or --only NAME for each",
            code="several_sessions",
        )
    ids = [one.id for one in plan if not one.session.problem]
    if twice := next((id for id in ids if ids.count(id) > 1), None):
        raise Refused(
            f"cannot import two sessions as {twice or 'one id'}: import each with --only NAME and"
            " an ID of its own",
            code="same_id",
        )
    return plan


def _import(options: argparse.Namespace, plan: Sequence[Planned]) -> int:
    imported = []
    for one in plan:
        if one.session.problem:
            one.result = f"refused: {one.session.problem}"
            continue
        try:
            imported.append(_import_one(options, one))
            one.result = "imported"
        except WaError as error:
            if len(plan) == 1:
                raise
            one.result = f"failed: {error}"
    if len(plan) == 1:
        _print_imported(options, imported[0])
    else:
        _print_plan(options, plan)
    return 0 if len(imported) == len(plan) else 4


def _import_one(options: argparse.Namespace, one: Planned) -> dict[str, Any]:
    if not one.id:
        raise InvalidRequest(
            f"cannot import {one.session.name}: its name is no id, give one after the source",
            field="id",
        )
    id = InstanceId(one.id)
    with pack_found(one.session, id) as archive:
        return _send(options, archive, id, one.session.name)


def _send(
    options: argparse.Namespace, archive: IO[bytes], id: str | None, name: str
) -> dict[str, Any]:
    wanted = {"replace": options.replace, "enable": options.enable}
    query = {name: "true" for name, given in wanted.items() if given}
    if id:
        query["id"] = id
    path = "/api/import" + ("?" + urlencode(query) if query else "")
    size, sent = os.fstat(archive.fileno()).st_size, [0]

    def count(more: int) -> None:
        sent[0] += more

    client = client_of(options)
    told: dict[str, Any] = with_progress(
        f"importing {name}",
        lambda: upload(client, path, archive, size, count),
        lambda: of_bytes(sent[0], size),
        quiet=wants_json(options),
    )
    return told


def _print_imported(options: argparse.Namespace, told: dict[str, Any]) -> None:
    if wants_json(options):
        print_json(told)
        return
    print(f"{told['id']} imported, {'enabled' if told['enabled'] else 'disabled'}")
    print(f"SHA-256 of the archive: {told['sha256']}")
    if told["trash"]:
        print(f"the trash has the old session as {told['trash']}")
    if not told["enabled"]:
        print(f"run it once no other copy runs: wa-agent enable {told['id']}")


def _print_plan(options: argparse.Namespace, plan: Sequence[Planned]) -> None:
    from agent.moving.session import age

    print_list(
        options,
        [
            {
                "name": one.session.name,
                "program": one.session.program,
                "account": one.session.account,
                "written": one.session.written,
                "pre_keys": one.session.pre_keys,
                "records": one.session.records,
                "id": one.id,
                "problem": one.session.problem,
                "code": one.session.code,
                "result": one.result,
            }
            for one in plan
        ],
        ("NAME", "PROGRAM", "ACCOUNT", "WRITTEN", "PRE-KEYS", "ID", "RESULT"),
        lambda row: (
            row["name"],
            row["program"],
            row["account"] or "-",
            age(row["written"]),
            row["pre_keys"],
            row["id"] or "-",
            row["result"]
            or (f"refused: {row['problem']}" if row["problem"] else "can be imported"),
        ),
        nothing="no session",
    )
