"""`import pm2`: bots of pm2 become [[program]] tables and instances, disabled."""

import argparse
import math
import os
import shlex
import stat
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.cli.client import AgentSaidNo, Client
from agent.cli.command import client_of
from agent.cli.paths import config_path
from agent.cli.terminal.answer import print_answer
from agent.cli.unit_memory import granted_memory, memory_drop_in
from agent.config import Config, load_config
from agent.config.settings_file import change_rows, with_rows
from agent.engines.program.declaration import ProgramDeclaration
from agent.errors import InvalidRequest, Refused
from agent.log import clean
from agent.wings.programs.moved import Bot, as_row, free_id, render
from agent.wings.programs.pm2 import read_list
from agent.wings.programs.pm2_list import Pm2List, read_pm2
from agent.wings.programs.settings import hide_values, programs_of

SOURCE = "pm2"
ALSO = " or from the bots that pm2 runs"
PLACES = ", or the word pm2"
_RELOADS, _EVERY = 15.0, 0.1
BACKSLASH, QUOTE = "\\", "'"
_NOT_FOR_PM2 = ("id", "replace", "enable")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"{parser.epilog}\n  {parser.prog} pm2 --dry-run"
    parser.add_argument(
        "--dump", metavar="FILE", help="of pm2: what `pm2 save` wrote; default: what pm2 runs now"
    )
    parser.add_argument("--config", metavar="FILE", help="of pm2: the agent.toml that is added to")


def import_sessions(options: argparse.Namespace) -> int | None:
    """None: the source is another one."""
    if options.source != SOURCE:
        if options.dump or options.config:
            raise InvalidRequest("cannot use --dump and --config but for pm2", field="dump")
        return None
    _refuse_foreign(options)
    path = config_path(options.config, os.environ)
    if path is None:
        raise InvalidRequest("cannot import from pm2: --config names agent.toml", field="config")
    listed = read_pm2(options.dump or "", os.environ)
    bots = _wanted(read_list(listed.raw, os.environ), getattr(options, "only", []))
    for bot in bots:
        _refuse_lost_folder(bot)
    config = load_config(path, os.environ)
    if options.dry_run:
        new = _named(bots, config)
        ids = {program.name: program.name for bot in bots for program in bot.programs}
        hidden = [
            replace(bot, programs=[hide_values(its) for its in bot.programs])
            for bot in _only(bots, new)
        ]
        return _tell(options, listed, bots, ids, _Told("nothing is changed", render(hidden)))
    client = client_of(options)
    client.open_socket().close()  # before anything is written
    new = _named(bots, config)
    done = _declare(path, bots, new)
    ids = _create(client, path, bots)
    return _tell(options, listed, bots, ids, _Told(done))


def _refuse_lost_folder(bot: Bot) -> None:
    """A bot may run on in a folder that was moved away, and never starts in it again."""
    with suppress(PermissionError):
        lost = [its.folder for its in bot.programs if its.folder and not Path(its.folder).is_dir()]
        if lost:
            bot.refused = f"the folder that it runs in, {lost[0]}, is not there"
            bot.programs.clear()


def _refuse_foreign(options: argparse.Namespace) -> None:
    """What another runs may not run here too: a person enables each, with the other's stopped."""
    for name in _NOT_FOR_PM2:
        if getattr(options, name):
            raise InvalidRequest(
                f"cannot use {name} for pm2: a bot becomes a disabled instance of its name",
                field=name,
            )


def _wanted(bots: list[Bot], only: Sequence[str]) -> list[Bot]:
    if missing := set(only) - {bot.name for bot in bots}:
        names = ", ".join(bot.name for bot in bots[:20])
        raise InvalidRequest(
            f"cannot import {min(missing)}: pm2 has {names}", field="only", code="no_session"
        )
    bots = [bot for bot in bots if not only or bot.name in only]
    if not bots:
        raise Refused("cannot import from pm2: it runs nothing", code="no_session")
    return bots


def _named(bots: Sequence[Bot], config: Config) -> set[str]:
    """Gives each program its name in agent.toml; those that are not there yet. One that an import
    before this one added is the same again."""
    declared = {program.name: program for program in programs_of(config)}
    taken, new = set(declared), set()
    for bot in bots:
        for number, program in enumerate(bot.programs):
            same = (
                its
                for its in declared.values()
                if replace(program, name=its.name, pm2=its.pm2) == its
            )
            if (known := next(same, None)) is not None:
                bot.programs[number] = known
                continue
            name = free_id(program.name, taken)
            taken.add(name)
            new.add(name)
            bot.programs[number] = replace(program, name=name)
    return new


def _only(bots: Sequence[Bot], new: set[str]) -> list[Bot]:
    """The bots with those of their programs that are not declared yet."""
    rest = [replace(bot, programs=[its for its in bot.programs if its.name in new]) for bot in bots]
    return [bot for bot in rest if bot.programs]


def _declare(path: Path, bots: Sequence[Bot], new: set[str]) -> str:
    """What was done, for people."""
    done = f"{len(new)} [[program]] added to {path}"
    if not (adding := _only(bots, new)):
        return done
    rows = [as_row(program) for bot in adding for program in bot.programs]
    text = render(adding)
    backup = change_rows(
        path, lambda old: with_rows(old, "program", rows, text), os.environ, "add programs to"
    )
    secrets = any(program.environment for bot in adding for program in bot.programs)
    if secrets and path.stat().st_mode & stat.S_IROTH:
        files = shlex.join([str(path), str(backup)])
        return f"{done}; every user of this machine can read the values in it: chmod o-r {files}"
    return done


def _create(client: Client, path: Path, bots: Sequence[Bot]) -> dict[str, str]:
    """By each program's name, the instance that runs it: it is there already, or is made now."""
    client.post("/api/reload")
    there = client.get("/api/instances")["instances"]
    running: dict[str, str] = {}
    for instance in there:
        if instance["engine"] == "program":
            details = client.get(f"/api/instance/{instance['id']}/details")
            running[details["settings"].get("program", "")] = instance["id"]
    taken, ids = {instance["id"] for instance in there}, {}
    for bot in bots:
        for program in bot.programs:
            if program.name not in running:
                id = running[program.name] = free_id(program.name, taken)
                taken.add(id)
                try:
                    _create_one(client, path, id, _settings(program, bot))
                except AgentSaidNo as error:
                    bot.refused = f"{program.name}: {error}"
                    del running[program.name]
                    continue
            ids[program.name] = running[program.name]
    return ids


def _settings(program: ProgramDeclaration, bot: Bot) -> Mapping[str, Any]:
    limit = {"memory_limit": bot.memory_limit} if bot.memory_limit else {}
    return {"program": program.name, **limit}


def _create_one(client: Client, path: Path, id: str, settings: Mapping[str, Any]) -> None:
    body = {"id": id, "engine": "program", "enabled": False, "settings": settings}
    deadline = time.monotonic() + _RELOADS
    while True:  # the agent reads its settings after it answered
        try:
            client.post("/api/instance", body)
            return
        except AgentSaidNo as error:
            if error.code != "unknown_program":
                raise
            if time.monotonic() > deadline:
                raise Refused(
                    f"cannot create {id}: the agent that answers does not read {path}; name its"
                    " agent.toml with --config",
                    code="other_config",
                ) from error
        time.sleep(_EVERY)


@dataclass(frozen=True, slots=True)
class _Told:
    done: str
    tables: str = ""
    """What a dry run would add."""


def _tell(
    options: argparse.Namespace,
    listed: Pm2List,
    bots: Sequence[Bot],
    ids: Mapping[str, str],
    told: _Told,
) -> int:
    shown, lines = [], [f"read from {clean(listed.source)}; {told.done}"]
    granted = granted_memory(ids.values())
    for bot in bots:
        instances = [ids[program.name] for program in bot.programs if program.name in ids]
        enable = [f"wa-agent enable {id}" for id in instances]
        moves = bool(instances) and not bot.refused
        # pm2 ends it, and forgets it for the next boot, before ours may start: never both.
        ends = f"{listed.command} stop {_quoted(bot.name)} && {listed.command} save"
        move = " && ".join([ends, *enable]) if moves else ""
        low = [id for id in instances if granted.get(id, math.inf) < bot.memory_limit]
        drop_ins = [memory_drop_in(id, bot.memory_limit) for id in low]
        shown.append(
            {
                SOURCE: bot.name,
                "programs": [program.name for program in bot.programs],
                "instances": instances,
                "memory_limit": bot.memory_limit,
                "drop_ins": [{"path": path, "text": text} for path, text in drop_ins],
                "taken_over": bot.taken,
                "not_taken_over": bot.notes,
                "refused": bot.refused,
                "move": move,
            }
        )
        made = f"{', '.join(instances)}, disabled" if instances else "not moved"
        lines += ["", f"{clean(bot.name)}: {made}"]
        lines += [f"  taken over: {its}" for its in bot.taken]
        lines += [f"  not taken over: {note}" for note in bot.notes]
        lines += [f"  it does not move: {clean(bot.refused)}"] if bot.refused else []
        for path, text in drop_ins:
            lines += [f"  its unit grants less memory; before it runs, root creates {path}"]
            lines += [f"    {line}" for line in text.splitlines()]
            lines += ["  and then: systemctl daemon-reload"]
        lines += [f"  {move}"] if move else []
    lines += ["", "Each of these commands ends pm2's, then starts ours. On systemd, before it:"]
    lines += ["  wa-agent programs drop-in PROGRAM prints what its unit must be shown"]
    answer = {"source": listed.source, "bots": shown, "tables": told.tables}
    good = not any(bot.refused for bot in bots)
    text = "\n".join([*told.tables.splitlines(), "", *lines]).strip()
    return print_answer(options, answer, text, good=good)


def _quoted(name: str) -> str:
    """For a shell; of control characters bash reads what a terminal can show."""
    if name.isprintable():
        return shlex.quote(name)
    return f"$'{clean(name.replace(BACKSLASH, BACKSLASH * 2)).replace(QUOTE, BACKSLASH + QUOTE)}'"
