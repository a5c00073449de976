"""`import`: our archives, and the paired sessions of other programs, as instances of this agent."""

import argparse
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.client import Client
from agent.cli.command import Subparsers, add_command, client_of, instance_id, wants_json
from agent.cli.copies.arrivals import (
    Planned,
    print_imported,
    print_plan,
    wait_for_first_messages,
)
from agent.cli.copies.sending import Sending, find_instance
from agent.cli.copies.sources import LOOKS, OURS, SOURCES, pack_found
from agent.cli.sessions.settings import add_settings, parse_settings
from agent.cli.terminal.progress import with_progress
from agent.core.model import InstanceId, parse_instance_id
from agent.errors import ConfigError, InvalidRequest, Refused, WaError

if TYPE_CHECKING:
    from agent.moving.session import FoundSession

AUTO, BAILEYS = "auto", "baileys"
IMPORTED = "imported"
_ENGINES = {"wwebjs": "web", BAILEYS: "baileys"}
"""The engine of what such a source holds; our archives name theirs."""
_GZIP = b"\x1f\x8b"


def add(commands: Subparsers) -> None:
    summary = "make instances from an archive or from another program's paired sessions"
    example = "/srv/bot/auth_info_baileys sales --enable"
    parser = add_command(commands, "import", import_sessions, summary, example)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="an archive of wa-agent, a folder, a database's file, dump or address",
    )
    parser.add_argument("id", metavar="ID", type=instance_id, nargs="?", help="id of the instance")
    parser.add_argument(
        "--from",
        dest="program",
        choices=(AUTO, *SOURCES, BAILEYS),
        default=AUTO,
        help="the program that wrote it; auto recognises it",
    )
    parser.add_argument("--dry-run", action="store_true", help="list the sessions, import nothing")
    parser.add_argument("--all", action="store_true", help="import every session of the source")
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
        help="folder or redis:// address with the keys of a database's sessions",
    )
    parser.add_argument(
        "--pattern",
        default="sessions:{id}:*",
        help="names of whaticket's keys in Redis (default %(default)s)",
    )
    parser.add_argument(
        "--stopped",
        action="store_true",
        help="confirm that the sessions' own program is stopped",
    )
    add_settings(parser)
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
    program = _one_session(options)
    if program and options.dry_run:
        session = LOOKS[program](Path(options.source))
        return _show(options, [Planned(session, _id_for(session, options))])
    if program:
        source, settings = Path(options.source), _settings(options, _ENGINES.get(program, ""))
        sending = Sending(options)
        with SOURCES[program](source, options.id, settings) as archive:
            instance = sending.send(archive, options.id, source.name)
        return _finish(options, instance)
    settings = _settings(options, _ENGINES[BAILEYS])
    sessions = _found(options)
    plan = [Planned(session, _id_for(session, options)) for session in sessions]
    if options.dry_run:
        return _show(options, plan)
    return _import(options, _chosen(options, plan), settings)


def _settings(options: argparse.Namespace, engine: str) -> Mapping[str, Any]:
    """What --set says, checked for the engine that the sessions get."""
    settings = parse_settings(options.set)
    if settings and not engine:
        raise InvalidRequest(
            "cannot use --set for an archive, which brings its settings: import it without"
            " --enable, then change them with `wa-agent settings`",
            field="set",
        )
    if settings:
        from agent.engines.catalog import check_settings

        try:
            check_settings(engine, settings)
        except ConfigError as error:
            raise InvalidRequest(str(error), field="set", code="invalid_settings") from None
    return settings


def _show(options: argparse.Namespace, plan: Sequence[Planned]) -> int:
    """What an import would do; where no agent answers, the sessions alone are judged."""
    if not options.replace:
        with suppress(WaError):
            _refuse_taken(client_of(options), plan)
    print_plan(options, plan)
    return 4 if any(planned.session.problem or planned.result for planned in plan) else 0


def _refuse_taken(client: Client, plan: Sequence[Planned]) -> None:
    for planned in plan:
        if planned.session.problem or not (instance := find_instance(client, planned.id)):
            continue
        on = f" on machine {instance['machine']}" if "machine" in instance else ""
        planned.result = f"refused: {planned.id} exists{on}"


def _one_session(options: argparse.Namespace) -> str:
    """The way of an archive or a profile, which are one session each; "" for everything else."""
    if options.program in SOURCES:
        return str(options.program)
    if options.program == BAILEYS or "://" in options.source:
        return ""
    from agent.engines.web.files import has_pairing
    from agent.moving.recognise import head_of
    from agent.vault.copies.seal import MAGIC

    path = Path(options.source)
    if path.is_dir():
        try:
            profiles = [
                path,
                *(folder for folder in path.iterdir() if folder.name.startswith("session")),
            ]
            return "wwebjs" if any(has_pairing(profile) for profile in profiles) else ""
        except OSError as error:
            raise InvalidRequest(f"cannot read {path}: {error.strerror}", field="source") from error
    return OURS if head_of(path).startswith((_GZIP, MAGIC)) else ""


def _found(options: argparse.Namespace) -> "list[FoundSession]":
    from agent.moving.recognise import Hints, find_sessions, shown
    from agent.moving.session import without_twins

    hints = Hints(options.keys, options.pattern, options.stopped)
    words = f"reading {shown(options.source)}"
    sessions = with_progress(
        words, lambda: find_sessions(options.source, hints), str, quiet=wants_json(options)
    )
    if missing := set(options.only) - {session.name for session in sessions}:
        names = ", ".join(session.name for session in sessions[:20])
        raise InvalidRequest(
            f"cannot import {min(missing)}: the source has {names}",
            field="only",
            code="no_session",
        )
    return without_twins(
        [session for session in sessions if not options.only or session.name in options.only]
    )


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
        print_plan(options, plan)
        raise Refused(
            f"cannot import {len(plan)} sessions at once: add --all, or --only NAME for each",
            code="several_sessions",
        )
    ids = [planned.id for planned in plan if not planned.session.problem]
    if twice := next((id for id in ids if ids.count(id) > 1), None):
        raise Refused(
            f"cannot import two sessions as {twice or 'one id'}: import each with --only NAME and"
            " an ID of its own",
            code="same_id",
        )
    return plan


def _import(
    options: argparse.Namespace, plan: Sequence[Planned], settings: Mapping[str, Any]
) -> int:
    imported, sending = [], Sending(options)
    for planned in plan:
        if planned.session.problem:
            planned.result = f"refused: {planned.session.problem}"
            continue
        try:
            imported.append(_import_one(planned, sending, settings))
            planned.result = IMPORTED
        except WaError as error:
            if len(plan) == 1:
                raise
            planned.result = f"failed: {error}"
    if len(plan) == 1:
        left_out = plan[0].session.left_out_sentence
        return _finish(options, {**imported[0], "left_out": left_out})
    readable = _wait_for_all(options, plan) if options.wait is not None else True
    print_plan(options, plan)
    return 0 if readable and len(imported) == len(plan) else 4


def _finish(options: argparse.Namespace, instance: dict[str, Any]) -> int:
    """Of one session: its report, and with --wait whether it reads."""
    if options.wait is None:
        print_imported(options, instance)
        return 0
    first = wait_for_first_messages(options, instance["id"], time.monotonic() + options.wait)
    print_imported(options, {**instance, "first_messages": first})
    return 4 if first["unread"] else 0


def _wait_for_all(options: argparse.Namespace, plan: Sequence[Planned]) -> bool:
    readable, deadline = True, time.monotonic() + options.wait
    for planned in plan:
        if planned.result != IMPORTED:
            continue
        try:
            first = wait_for_first_messages(options, planned.id, deadline)
            planned.result = first["sentence"]
            readable = readable and not first["unread"]
        except WaError as error:
            planned.result, readable = f"imported; {error}", False
    return readable


def _import_one(planned: Planned, sending: Sending, settings: Mapping[str, Any]) -> dict[str, Any]:
    if not planned.id:
        raise InvalidRequest(
            f"cannot import {planned.session.name}: its name is no id, give one after the source",
            field="id",
        )
    id, name = InstanceId(planned.id), planned.session.name
    try:
        with pack_found(planned.session, id, settings) as archive:
            return sending.send(archive, id, name)
    except WaError:
        raise
    except Exception as error:
        cause = getattr(error, "strerror", "") or type(error).__name__
        raise WaError(f"cannot import {name}: {cause}") from error
