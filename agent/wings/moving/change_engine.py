"""`change-engine`: a session goes over to another engine, without a scan. It is copied out of the
stopped instance, written as the other engine keeps it, checked, and put in its place; the old files
are in the trash."""

import argparse
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import IO, Any

from agent.cli.client import Client
from agent.cli.command import Subparsers, add_instance_command, client_of
from agent.cli.copies.sending import Sending
from agent.cli.copies.transfer import download
from agent.cli.paths import config_path
from agent.cli.sessions.settings import add_settings, parse_settings
from agent.cli.sessions.waiting import add_wait, wait_and_print
from agent.config import load_config
from agent.core.model import InstanceId
from agent.errors import ConfigError, InvalidRequest, Refused
from agent.vault.archives.found import FoundSession
from agent.vault.archives.scratch import scratch
from agent.wing import modules_of
from agent.wings.moving.archives import packed
from agent.wings.moving.auth_folder import export_auth_folder
from agent.wings.moving.folders import find_in_folder, folders_in
from agent.wings.moving.held import refuse_changed, refuse_missing, stopped
from agent.wings.moving.local_auth import export_local_auth, find_local_auth, import_local_auth
from agent.wings.moving.of_program import give_back, is_inner, keep_keys, keep_profile
from agent.wings.moving.session import write_folder
from agent.wings.moving.users import user_of_folder

PROGRAM, BAILEYS, WEB = "program", "baileys", "web"
WAYS = frozenset({(PROGRAM, BAILEYS), (BAILEYS, PROGRAM), (PROGRAM, WEB), (WEB, PROGRAM)})
KEYS, PROFILES = "auth_info_baileys", ".wwebjs_auth"
"""Where most bots on Baileys, and those on whatsapp-web.js, keep their session."""


def add(commands: Subparsers) -> None:
    summary = "hand a session to another engine, without a scan"
    parser = add_instance_command(commands, "change-engine", change, summary, "--to baileys")
    parser.add_argument("--to", required=True, choices=(BAILEYS, PROGRAM, WEB), help="the engine")
    parser.add_argument(
        "--program", metavar="NAME", default="", help="the [[program]] that gets it"
    )
    parser.add_argument(
        "--session",
        metavar="FOLDER",
        default="",
        help="where the program keeps the session itself, outside of the instance; to a program:"
        f" that folder in the session's (default: where it had it, else {KEYS}, {PROFILES})",
    )
    add_settings(parser)
    add_wait(parser)


def change(options: argparse.Namespace) -> int:
    client = client_of(options)
    instance = client.get(f"/api/instance/{options.id}/details")
    _refuse(options, instance)
    refuse_missing(client, options.id, options.to)
    settings = _settings(options, instance)
    sending = Sending(argparse.Namespace(**vars(options), replace=True, enable=False))
    with stopped(client, instance), _copied_out(client, options.id) as folder:
        if instance["engine"] == PROGRAM:
            archive = _from_program(options, instance, folder, settings)
        else:
            archive = _to_program(options, instance, folder, settings)
        with archive:
            refuse_changed(client, instance)
            made = sending.send(archive, options.id, options.id)
    done = f"has engine {options.to}; the trash has its old files as {made['trash']}"
    if not instance["enabled"]:
        options.wait = None
    return wait_and_print(client, options, client.get(f"/api/instance/{options.id}"), done)


def _refuse(options: argparse.Namespace, instance: Mapping[str, Any]) -> None:
    engine, doing = instance["engine"], f"cannot change the engine of {options.id}"
    if not any(modules_of("archives")):
        raise Refused(f"{doing}: this agent takes no archives of sessions", code="no_archives")
    if engine == options.to:
        raise Refused(f"{doing}: it has engine {engine} already", code="same_engine")
    if (engine, options.to) not in WAYS:
        raise Refused(
            f"{doing} from {engine} to {options.to}: files of the one hold nothing that the other"
            " could use; a session goes between program and baileys, and program and web",
            code="no_way",
        )
    if not instance["paired"]:
        raise Refused(
            f"{doing}: it is not paired, so that there is nothing to take over; delete it and"
            " create it with the other engine",
            code="not_paired",
        )
    if options.to == PROGRAM and not options.program:
        raise InvalidRequest(f"{doing}: name the [[program]] with --program", field="program")
    if options.to == PROGRAM and options.session and not is_inner(options.session):
        words = "to a program, --session is a folder in the session's, with no .. and no leading /"
        raise InvalidRequest(f"{doing}: {words}", field="session")
    if options.to == PROGRAM:
        _refuse_program(options.program, doing)


def _refuse_program(name: str, doing: str) -> None:
    """As far as this user may read agent.toml; the agent itself names a program that is missing."""
    path = config_path(None, os.environ)
    try:
        rows = load_config(path, os.environ).of_wings.get("program", ()) if path else None
    except ConfigError:
        rows = None
    if rows is None:
        return
    row = next((row for row in rows if row.name == name), None)
    if row is None:
        raise InvalidRequest(
            f"{doing}: agent.toml has no [[program]] named {name!r:.60}",
            field="program",
            code="unknown_program",
        )
    if row.folder:
        raise Refused(
            f"{doing}: {name} runs in {row.folder} and looks for its session there; remove"
            " `folder` from its [[program]], or write it there with `wa-agent export --to`",
            code="keys_elsewhere",
        )


def _settings(options: argparse.Namespace, instance: Mapping[str, Any]) -> dict[str, Any]:
    """What every engine has comes along."""
    own = {"program": options.program} if options.to == PROGRAM else {}
    kept = {k: v for k, v in instance["settings"].items() if k == "memory_limit"}
    return {**kept, **parse_settings(options.set), **own}


@contextmanager
def _copied_out(client: Client, id: str) -> Iterator[Path]:
    from agent.vault.archives.unpack import unpack_apart
    from agent.vault.archives.untar import Limits

    with scratch() as folder:
        archive, session = folder / "archive", folder / "session"
        download(client, f"/api/instance/{id}/export", {}, archive, lambda _count: None)
        session.mkdir(mode=0o700)
        with archive.open("rb") as source:
            unpack_apart(session, source, Limits())
        yield session


def _from_program(
    options: argparse.Namespace,
    instance: Mapping[str, Any],
    copy: Path,
    settings: Mapping[str, Any],
) -> IO[bytes]:
    source = Path(options.session) if options.session else copy
    if options.session and not source.is_dir():
        raise InvalidRequest(f"cannot read {source}: there is no such folder", field="session")
    if options.session and (program := user_of_folder(source)):
        raise Refused(f"cannot use {source}: {program} uses it now; stop that", code="in_use")
    if options.to == WEB:
        return _profile_of(options.id, instance, source, settings, keeps=source is copy)
    found = find_in_folder(source)
    if len(found) != 1:
        raise _elsewhere(options.id, len(found))
    session = found[0]
    if session.problem:
        raise Refused(
            f"cannot use the session of {options.id}: {session.problem}", code=session.code
        )
    _refuse_other(instance, session)

    def fill(folder: Path) -> None:
        write_folder(session, folder)
        if source is copy:
            keep_keys(copy, next(folders_in(copy)), folder)

    return packed(
        session.name,
        InstanceId(options.id),
        BAILEYS,
        fill,
        settings=settings,
        account=session.account,
    )


def _elsewhere(id: str, count: int) -> Refused:
    if count:
        cause, code = f"{count} sessions lie in it: name one with --session", "several_sessions"
    else:
        cause = "its program keeps the session elsewhere: name that folder with --session"
        code = "keys_elsewhere"
    return Refused(f"cannot use the session of {id}: {cause}", code=code)


def _refuse_other(instance: Mapping[str, Any], session: FoundSession) -> None:
    if instance["account"] and session.account != instance["account"]:
        raise Refused(
            f"cannot use this session for {instance['id']}: it is of account {session.account}",
            code="other_account",
        )


def _profile_of(
    id: str,
    instance: Mapping[str, Any],
    source: Path,
    settings: Mapping[str, Any],
    *,
    keeps: bool,
) -> IO[bytes]:
    inner = source / PROFILES
    profile = find_local_auth(inner if inner.is_dir() else source)
    account = instance["account"]

    def fill(folder: Path) -> None:
        import_local_auth(profile, folder)
        if keeps:
            keep_profile(source, profile, folder)

    return packed(profile.name, InstanceId(id), WEB, fill, settings=settings, account=account)


def _to_program(
    options: argparse.Namespace,
    instance: Mapping[str, Any],
    copy: Path,
    settings: Mapping[str, Any],
) -> IO[bytes]:
    """Into the session's own folder; a program with a folder of its own gets it by `export`."""

    def fill(folder: Path) -> None:
        had = give_back(copy, folder)
        if instance["engine"] == WEB:
            profile = PurePath(had or f"{PROFILES}/session")
            target = folder / (options.session or profile.parent)
            export_local_auth(copy, target, profile.name.removeprefix("session").removeprefix("-"))
            return
        keys = export_auth_folder(copy, folder, ".keys")
        place = folder / (options.session or had or KEYS)
        place.mkdir(parents=True, exist_ok=True)
        for file in keys.iterdir():
            file.rename(place / file.name)
        keys.rmdir()

    return packed(
        options.id,
        InstanceId(options.id),
        PROGRAM,
        fill,
        settings=settings,
        account=instance["account"],
    )
