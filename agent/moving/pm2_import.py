"""`import pm2`: bots of pm2 become [[program]] tables and instances, disabled."""

import argparse
import os
import shlex
import time
from collections.abc import Mapping
from typing import Any

import tomli_w

from agent.cli.client import AgentSaidNo, Client
from agent.cli.command import client_of
from agent.cli.paths import config_path
from agent.cli.terminal import print_answer
from agent.config.load import load_config
from agent.config.settings_file import add_rows
from agent.engines.program.declaration import ProgramDeclaration
from agent.errors import InvalidRequest, Refused
from agent.log import clean
from agent.moving.commands import only
from agent.moving.pm2 import Bot, read_list, read_pm2
from agent.moving.programs import hide_values, programs_of

_RELOADS, _EVERY = 15.0, 0.1
_NEXT = (
    "",
    "Each of these commands ends pm2's, then starts ours. On systemd, before it:",
    "  wa-agent programs drop-in PROGRAM prints what its unit must be shown",
    "  wa-agent doctor prints what grants it more memory than its unit does",
)


def import_pm2(options: argparse.Namespace) -> int:
    for name in ("id", "replace", "enable", "engine"):
        if getattr(options, name):
            words = f"cannot use {name} for pm2: a bot becomes a disabled instance of its name"
            raise InvalidRequest(words, field=name)
    path = config_path(options.config, os.environ)
    if path is None:
        raise InvalidRequest("cannot import from pm2: --config names agent.toml", field="config")
    raw, source, pm2 = read_pm2(options.dump, os.environ)
    bots = _wanted(options, read_list(raw, os.environ))
    new = _new_programs(bots, programs_of(load_config(path, os.environ)))
    done, tables = "nothing is changed", render([hide_values(program) for program in new])
    if not options.dry_run:
        client = client_of(options)
        client.open_socket().close()  # before anything is written
        if new:
            add_rows(path, render(new), env=os.environ, what="add programs to")
        done, tables = f"{len(new)} [[program]] added to {path}", ""
        _create(client, bots)
    shown = [_report(bot, pm2) for bot in bots]
    lines = [f"read from {clean(source)}; {done}"]
    for report in shown:
        made = f"{', '.join(report['instances']) or 'none'}, disabled"
        lines += ["", f"{clean(report['pm2'])}: {made}"]
        lines += [f"  not taken over: {clean(note)}" for note in report["not_taken_over"]]
        lines += [f"  it does not move: {clean(cause)}" for cause in [report["refused"]] if cause]
        lines += [f"  {report['move']}"]
    answer = {"source": source, "bots": shown, "tables": tables}
    text = "\n".join([*tables.splitlines(), "", *lines, *_NEXT]).strip()
    return print_answer(options, answer, text, good=not any(bot.refused for bot in bots))


def _wanted(options: argparse.Namespace, bots: list[Bot]) -> list[Bot]:
    names = only(options, [bot.name for bot in bots], "pm2")
    if not names:
        raise Refused("cannot import from pm2: it runs nothing", code="no_session")
    return [bot for bot in bots if bot.name in names]


def _new_programs(
    bots: list[Bot], declared: tuple[ProgramDeclaration, ...]
) -> list[ProgramDeclaration]:
    """Those that agent.toml lacks: an import before this one may have added some."""
    rows = {row.name: row for row in declared}
    for bot in bots:
        for program in bot.programs:
            row = rows.get(program.name, program)
            if (row.command, row.folder) != (program.command, program.folder):
                bot.refused = f"agent.toml has another [[program]] {row.name}; rename that one"
        if bot.refused:
            bot.programs.clear()
    return [its for bot in bots for its in bot.programs if its.name not in rows]


def as_row(program: ProgramDeclaration) -> dict[str, Any]:
    """What differs from the defaults, in the words of TOML."""
    plain, row = ProgramDeclaration(), {}
    for key in ("name", "command", "folder", "environment", "pm2", "stop"):
        if (value := getattr(program, key)) != getattr(plain, key):
            row[key] = list(value) if isinstance(value, tuple) else value
    return row


def render(programs: list[ProgramDeclaration]) -> str:
    tables = (tomli_w.dumps({"program": [as_row(program)]}) for program in programs)
    return "\n".join(f"# Of pm2.\n{table}" for table in tables)


def _create(client: Client, bots: list[Bot]) -> None:
    """An instance for each program, of its name, where it is not there already."""
    client.post("/api/reload")
    for bot in bots:
        limit = {"memory_limit": bot.memory_limit} if bot.memory_limit else {}
        for program in [*bot.programs]:
            settings = {"program": program.name, **limit}
            try:
                _create_one(client, program.name, settings)
            except AgentSaidNo as error:
                path = f"/api/instance/{program.name}/details"
                there = client.get(path)["settings"] if error.code == "exists" else {}
                if there.get("program") == program.name:
                    continue
                bot.refused = f"{program.name}: {error}"
                bot.programs.remove(program)


def _create_one(client: Client, id: str, settings: Mapping[str, Any]) -> None:
    body = {"id": id, "engine": "program", "enabled": False, "settings": settings}
    deadline = time.monotonic() + _RELOADS
    while True:  # the agent reads its settings after it answered
        try:
            client.post("/api/instance", body)
            return
        except AgentSaidNo as error:
            if error.code != "unknown_program" or time.monotonic() > deadline:
                raise
        time.sleep(_EVERY)


def _report(bot: Bot, pm2: str) -> dict[str, Any]:
    """`move`: pm2 ends it, and forgets it for the next boot, before ours may start: never both."""
    ids = [program.name for program in bot.programs]
    ends = f"{pm2} stop {shlex.quote(bot.name)} && {pm2} save"
    move = " && ".join([ends, *(f"wa-agent enable {id}" for id in ids)])
    return {
        "pm2": bot.name,
        "instances": ids,
        "memory_limit": bot.memory_limit,
        "not_taken_over": bot.notes,
        "refused": bot.refused,
        "move": move if ids and not bot.refused else "",
    }
