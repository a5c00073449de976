"""`export` and `import`: a session as an archive of ours, or as another program keeps it."""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from agent.cli import client, command
from agent.cli.session import SET, finish, id_for, parse_settings, upload
from agent.core.model import InstanceId
from agent.errors import ConfigError, InvalidRequest, Refused, WaError
from agent.moving import sources
from agent.vault.archives import Arrived, FoundSession, Limits, pack_session, scratch, unpack_apart

OURS = "wa-agent"
WEB, BAILEYS = "web", "baileys"
TARGETS = {"wwebjs": WEB, BAILEYS: BAILEYS}
"""Program → the engine whose files it takes."""
_GZIP = b"\x1f\x8b"
_WHOSE = "of an archive: the engine that gets the session which its bot kept, web or baileys"
_EXAMPLE = """sales.tar.gz --enable
  wa-agent import /srv/bot/auth_info_baileys sales --enable
  wa-agent import pm2 --dry-run"""


def add(commands: command.Commands) -> None:
    to = f"program to write for: {', '.join((OURS, *TARGETS))}", {"choices": (OURS, *TARGETS)}
    commands.one("export", export, "sales.tar.gz", words={"--to PROGRAM": to}, to=OURS)
    words = {"--engine ENGINE": (_WHOSE, {"choices": (WEB, BAILEYS)}), **SET}
    commands.add("import", import_sessions, _EXAMPLE, words, keys="")


def export(options: command.Options) -> int:
    """Write a session, with its keys, into one file.

    FILE: the archive to write; with --to the folder
    --snapshot NAME: export this snapshot, not the present session
    --force: replace the file; with --to move the folder aside
    """
    last = f"stop {options.id} here before the copy runs anywhere else"
    if options.to != OURS:
        with scratch() as place:
            _download(options, place / "archive")
            engine = _unpack(place / "archive", place).manifest.engine
            if engine != TARGETS[options.to]:
                raise Refused(f"cannot export {options.id} to {options.to}: its engine is {engine}")
            session, force = place / "session", options.force
            folder = sources.export_folder(session, engine, options.id, options.file, force=force)
        return options.print({"folder": str(folder)}, f"{folder} written; {last}")
    client.check_target(options.file, force=options.force)
    sha256 = _download(options, options.file)
    size = options.file.stat().st_size
    written = {"file": str(options.file), "bytes": size, "sha256": sha256}
    return options.print(written, f"{sha256}  {options.file}", f"{size} bytes; {last}")


def _download(options: command.Options, target: Path) -> str:
    path, body = f"/api/instance/{options.id}/export", options.given("snapshot")
    asked = options.client.exchange("POST", path, body, Accept="*/*")
    with options.progress(f"exporting {options.id}"), asked as response:
        return client.write_checked(response, target, "X-Archive-SHA256")[1]


def _unpack(archive: Path, folder: Path) -> Arrived:
    """Unpack an archive into `folder`/session."""
    (session := folder / "session").mkdir(mode=0o700)
    with client.open_source(archive, "archive") as file:
        return unpack_apart(session, file, Limits())


def import_sessions(options: command.Options) -> int:
    """Make an instance from an archive, another program's session or a bot of pm2's.

    SOURCE: an archive of wa-agent, a folder, a JSON file, or the word pm2
    [ID]: id of the instance
    --dry-run: list the sessions, import nothing; the agent, which may have them, is not asked
    --all: import every session of the source
    --stopped: confirm that the sessions' own program is stopped
    --replace: retire that instance first
    --enable: run it at once
    --keys PLACE: folder or JSON file with the keys that the source lacks
    --dump FILE: of pm2: what `pm2 save` wrote; default: ~/.pm2/dump.pm2
    --config FILE: of pm2: the agent.toml that is added to
    --only NAME…: import this session; repeatable
    --wait SECONDS: with --enable: wait until it is connected; exit status 75 when it is not in time
    """
    if options.wait is not None and not options.enable:
        raise InvalidRequest("cannot wait for what does not run: add --enable", field="wait")
    if options.source == "pm2":
        from agent.moving.program_commands import import_pm2

        return import_pm2(options)
    if options.dump or options.config:
        raise InvalidRequest("cannot use --dump and --config but for pm2", field="dump")
    engine, options.place = _engine(options.source), options.source
    if engine and options.engine:
        raise InvalidRequest("cannot use --engine but for an archive", field="engine")
    if engine:
        return _import_found(options, engine)
    if not options.engine:
        return _import_archive(options, Path(options.source))
    with scratch() as folder:
        arrived = _unpack(Path(options.source), folder)
        options.id = options.id or arrived.manifest.id
        # The bot's own folder lies in the archive, and no bot runs in that.
        place = "session/.wwebjs_auth" if options.engine == WEB else "session"
        options.place, options.stopped = str(folder / place), True
        return _import_found(options, options.engine)


def _engine(source: str) -> str:
    """Return the engine for the sessions of another program; "" = an archive of ours."""
    if "://" in source:
        return BAILEYS
    path = Path(source)
    if path.is_dir():
        return WEB if sources.local_auths(path) else BAILEYS
    return "" if sources.head_of(path).startswith(_GZIP) else BAILEYS


def _import_archive(options: command.Options, path: Path) -> int:
    if options.only:
        raise InvalidRequest("cannot use --only for an archive: it has one session", field="only")
    if options.dry_run:
        session = look_at_archive(path)
        return print_plan(options, [Planned(session, options.id or id_for(session.name))])
    if options.set:
        words = "cannot use --set for an archive, which brings its settings: import it without"
        raise InvalidRequest(f"{words} --enable, then use `wa-agent settings`", field="set")
    with client.open_source(path, "archive") as archive:
        return finish(options, upload(options, archive, options.id, path.name))


@dataclass(slots=True)
class Planned:
    session: FoundSession
    id: str
    result: str = ""


def print_plan(options: command.Options, plan: Sequence[Planned]) -> int:
    """4 if a session cannot be imported; an agent may refuse others, each with its cause."""
    copied = ("name", "program", "account", "written", "pre_keys", "records", "problem", "code")
    rows = [{name: getattr(each.session, name) for name in copied} for each in plan]
    for row, each in zip(rows, plan, strict=True):
        row |= {"left_out": each.session.left_out_sentence, "id": each.id, "result": each.result}
    columns = {"NAME": "name", "PROGRAM": "program", "ACCOUNT": "account", "WRITTEN": _age}
    more = {"PRE-KEYS": lambda row: row["pre_keys"] or "-", "ID": "id", "RESULT": _outcome}
    options.print_rows(rows, {**columns, **more}, nothing="no session")
    return 4 if any(planned.session.problem for planned in plan) else 0


def _outcome(row: Mapping[str, Any]) -> str:
    if row["problem"]:
        return row["result"] or f"refused: {row['problem']}"
    return "; ".join(filter(None, (row["result"] or "can be imported", row["left_out"])))


def _age(row: Mapping[str, Any]) -> str:
    return command.duration(max(time.time() - row["written"], 0)) if row["written"] else "unknown"


def look_at_archive(path: Path) -> FoundSession:
    """Read and check the whole archive, as at an import."""
    from agent.moving.archives import unfit

    with scratch() as folder:
        try:
            arrived = _unpack(path, folder)
        except WaError as error:
            return FoundSession(OURS, path.name, problem=str(error), code=error.code)
    manifest, (problem, code) = arrived.manifest, unfit(arrived)
    paths = [file.path for file in manifest.listing.files]
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


def _import_found(options: command.Options, engine: str) -> int:
    """Import sessions of another program: find, show, pack and send them one by one."""
    if settings := parse_settings(options.set):
        from agent.engines.catalog import check_settings

        try:
            check_settings(engine, settings)
        except ConfigError as error:
            raise InvalidRequest(str(error), field="set", code="invalid_settings") from None
    plan: list[Planned] = []
    for found in _find(options, engine):
        id = options.id or id_for(found.name)
        twin = next((it.session.name for it in plan if it.id == id and not it.session.problem), "")
        if not found.problem and (twin or not id):
            words = f"its id {id} is that of {twin}" if twin else "its name is no id"
            words += ": import it alone, by --only, with an ID after the source"
            found = replace(found, problem=words, code="same_name" if twin else "invalid_id")
        plan.append(Planned(found, id))
    if options.dry_run:
        return print_plan(options, plan)
    _refuse_unclear(options, plan)
    options.ask("GET /api/caller")  # before anything is copied
    done = []
    for planned in plan:
        session = planned.session
        if session.problem:
            planned.result = f"refused: {session.problem}"
            continue
        try:
            with _packed(options, planned, engine, settings) as archive:
                done.append(upload(options, archive, planned.id, session.name))
            planned.result = "imported"
        except (WaError, OSError) as error:
            if len(plan) == 1:
                raise
            planned.result = f"failed: {error}"
    if len(plan) == 1:
        return finish(options, {**done[0], "left_out": plan[0].session.left_out_sentence})
    print_plan(options, plan)
    return 0 if len(done) == len(plan) else 4


def _find(options: command.Options, engine: str) -> list[FoundSession]:
    if engine == WEB:
        sessions = [*map(sources.look_at_local_auth, sources.local_auths(Path(options.place)))]
    else:
        sessions = sources.find_sessions(options.place, keys=options.keys, stopped=options.stopped)
    if not sessions:
        words = f"cannot import {options.source}: it holds no session; known are {sources.KINDS}"
        raise InvalidRequest(words, field="source", code="no_session")
    names = only(options, [session.name for session in sessions], "the source")
    return sources.without_twins([session for session in sessions if session.name in names])


def only(options: command.Options, names: list[str], source: str) -> list[str]:
    """Return those of the names that --only asks for."""
    if missing := set(options.only) - set(names):
        words = f"cannot import {min(missing)}: {source} has {', '.join(names[:20])}"
        raise InvalidRequest(words, field="only", code="no_session")
    return options.only or names


def _refuse_unclear(options: command.Options, plan: Sequence[Planned]) -> None:
    """Refuse more than one session without names, so that none is moved by mistake."""
    first = plan[0].session
    if len(plan) == 1 and first.problem:
        raise Refused(f"cannot import {first.name}: {first.problem}", code=first.code)
    if len(plan) > 1 and (options.id or not (options.all or options.only)):
        print_plan(options, plan)
        words = f"cannot import {len(plan)} sessions at once: add --all, or --only NAME for each"
        raise Refused(words, code="several_sessions")
    if len(plan) > 1 and options.wait is not None:
        raise InvalidRequest("cannot wait for several: import one with --only NAME", field="wait")


@contextmanager
def _packed(
    options: command.Options, planned: Planned, engine: str, settings: Mapping[str, Any]
) -> Iterator[IO[bytes]]:
    """Pack another program's session as an archive of ours: every check of an import holds."""
    session = planned.session
    with scratch() as folder, tempfile.TemporaryFile() as out:
        (place := folder / "session").mkdir(mode=0o700)
        if engine == WEB:
            profiles = sources.local_auths(Path(options.place))
            profile = next(entry for entry in profiles if entry.name == session.name)
            sources.copy_local_auth(profile, place)
        else:
            sources.write_folder(session, place)
        id, now = InstanceId(planned.id), time.time()
        pack_session(place, id, engine, out, wall=now, account=session.account, settings=settings)
        out.seek(0)
        yield out
