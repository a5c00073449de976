"""What `import` does with other programs' sessions: found, shown, packed and sent one by one."""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.cli.command import wants_json
from agent.cli.copies.arrivals import (
    OURS,
    Planned,
    finish,
    id_for,
    print_plan,
    show_plan,
    wait_for_first_messages,
)
from agent.cli.copies.sending import Sending
from agent.cli.sessions.settings import add_settings, parse_settings
from agent.cli.terminal.progress import with_progress
from agent.core.model import InstanceId
from agent.errors import ConfigError, InvalidRequest, Refused, WaError
from agent.vault.archives.found import FoundSession
from agent.wings.moving.archives import look_at_local_auth, pack_found, pack_local_auth

AUTO, WWEBJS, BAILEYS = "auto", "wwebjs", "baileys"
IMPORTED = "imported"
ALSO = " or from another program's paired sessions"
PLACES = ", a folder, a JSON file"
"""What the help of `import` says after an archive."""
_GZIP = b"\x1f\x8b"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"{parser.epilog}\n  {parser.prog} /srv/bot/auth_info_baileys sales --enable"
    parser.add_argument(
        "--from",
        dest="program",
        choices=(AUTO, OURS, WWEBJS, BAILEYS),
        default=AUTO,
        help="the program that wrote it; auto recognises it",
    )
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
        help="folder or JSON file with the keys that the source lacks",
    )
    parser.add_argument(
        "--stopped",
        action="store_true",
        help="confirm that the sessions' own program is stopped",
    )
    add_settings(parser)


def import_sessions(options: argparse.Namespace) -> int | None:
    """None: the source is an archive of ours."""
    program = _program(options)
    if program == OURS:
        if options.set and not options.dry_run:
            raise InvalidRequest(
                "cannot use --set for an archive, which brings its settings: import it without"
                " --enable, then change them with `wa-agent settings`",
                field="set",
            )
        return None
    if program == WWEBJS:
        return _import_profile(options, Path(options.source))
    settings = _settings(options, "baileys")
    plan = [Planned(session, id_for(session, options.id)) for session in _found(options)]
    if options.dry_run:
        return show_plan(options, plan)
    return _import(options, _chosen(options, plan), settings)


def _import_profile(options: argparse.Namespace, path: Path) -> int:
    if options.dry_run:
        session = look_at_local_auth(path)
        return show_plan(options, [Planned(session, id_for(session, options.id))])
    settings = _settings(options, "web")
    sending = Sending(options)
    with pack_local_auth(path, options.id, settings) as archive:
        return finish(options, sending.send(archive, options.id, path.name))


def _settings(options: argparse.Namespace, engine: str) -> Mapping[str, Any]:
    """What --set says, checked for the engine that the sessions get."""
    settings = parse_settings(options.set)
    if settings:
        from agent.engines.catalog import check_settings

        try:
            check_settings(engine, settings)
        except ConfigError as error:
            raise InvalidRequest(str(error), field="set", code="invalid_settings") from None
    return settings


def _program(options: argparse.Namespace) -> str:
    """The way of an archive or a profile, which are one session each; BAILEYS for all others."""
    if options.program != AUTO:
        return str(options.program)
    if "://" in options.source:
        return BAILEYS
    from agent.engines.web.files import has_pairing
    from agent.wings.moving.recognise import head_of

    path = Path(options.source)
    if path.is_dir():
        try:
            profiles = [
                path,
                *(folder for folder in path.iterdir() if folder.name.startswith("session")),
            ]
            return WWEBJS if any(has_pairing(profile) for profile in profiles) else BAILEYS
        except OSError as error:
            raise InvalidRequest(f"cannot read {path}: {error.strerror}", field="source") from error
    return OURS if head_of(path).startswith(_GZIP) else BAILEYS


def _found(options: argparse.Namespace) -> list[FoundSession]:
    from agent.wings.moving.recognise import Hints, find_sessions, shown
    from agent.wings.moving.session import without_twins

    hints = Hints(options.keys, options.stopped)
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
        return finish(options, {**imported[0], "left_out": left_out})
    readable = _wait_for_all(options, plan) if options.wait is not None else True
    print_plan(options, plan)
    return 0 if readable and len(imported) == len(plan) else 4


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
