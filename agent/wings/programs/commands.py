"""`programs`: what agent.toml declares, and what their units must be allowed to read."""

import argparse
import os
import shlex
import sys
from pathlib import Path

from agent.cli.command import Subparsers, add_command, name_of_a, wants_json
from agent.cli.paths import config_path
from agent.cli.terminal.answer import print_answer, print_list
from agent.config import Config, load_config
from agent.engines.program.declaration import ProgramDeclaration
from agent.errors import InvalidRequest, NotFound
from agent.wings.programs.reach import render_reach
from agent.wings.programs.settings import hide_values, programs_of


def add(commands: Subparsers) -> None:
    summary = "list the programs that may run as instances"
    parser = add_command(commands, "programs", list_programs, summary)
    parser.add_argument("--config", metavar="FILE", help="agent.toml")
    among = parser.add_subparsers(metavar="COMMAND")
    parser = add_command(among, "list", list_programs, summary)
    parser.add_argument("--config", metavar="FILE", help="agent.toml")
    summary = "print a systemd drop-in with the rights that a program's unit needs"
    parser = add_command(among, "drop-in", drop_in, summary, "shopbot > program.conf")
    name_type = name_of_a("program")
    parser.add_argument("program", metavar="PROGRAM", type=name_type, help="the program's name")
    parser.add_argument("--config", metavar="FILE", help="agent.toml")
    summary = "print pm2's programs as tables for agent.toml; changes nothing"
    parser = add_command(among, "pm2", pm2, summary)
    parser.add_argument(
        "--dump", metavar="FILE", help="what `pm2 save` wrote; default: ~/.pm2/dump.pm2"
    )


def list_programs(options: argparse.Namespace) -> int:
    shown = (hide_values(program) for program in programs_of(_config(options)))
    rows = [
        {
            "name": program.name,
            "command": shlex.join(program.command),
            "folder": program.folder,
            "library": program.library,
            "environment": list(program.environment),
        }
        for program in shown
    ]
    return print_list(
        options,
        rows,
        ("NAME", "COMMAND", "FOLDER", "LIBRARY"),
        lambda row: (row["name"], row["command"], row["folder"] or "-", row["library"]),
        nothing="no programs: [[program]] in agent.toml names them",
    )


def drop_in(options: argparse.Namespace) -> int:
    text = render_reach(_find(options))
    if not text and not wants_json(options):
        print(
            f"{options.program} needs no drop-in: a session's unit has all rights that it needs",
            file=sys.stderr,
        )
    path = "/etc/systemd/system/wa-instance@INSTANCE.service.d/program.conf"
    return print_answer(options, {"path": path, "text": text}, text.removesuffix("\n"))


def pm2(options: argparse.Namespace) -> int:
    from agent.wings.programs import pm2 as reader

    home = os.environ.get("PM2_HOME") or Path.home() / ".pm2"
    path = Path(options.dump or Path(home) / "dump.pm2")
    try:
        with path.open("rb") as file:
            raw = file.read(reader.LARGEST)
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror}", field="dump") from None
    found = reader.read_dump(raw, os.environ)
    told = [
        {
            "pm2": its.name,
            "program": its.program.name,
            "instances": its.instances,
            "memory_limit": its.memory_limit,
            "not_taken_over": its.notes,
        }
        for its in found
    ]
    text = reader.render(found)
    return print_answer(options, {"programs": told, "text": text}, text.removesuffix("\n"))


def _find(options: argparse.Namespace) -> ProgramDeclaration:
    declared = {program.name: program for program in programs_of(_config(options))}
    if options.program not in declared:
        names = ", ".join(declared) or "none"
        raise NotFound(f"cannot find the program {options.program}; declared: {names}")
    return declared[options.program]


def _config(options: argparse.Namespace) -> Config:
    """From the settings alone: the operator needs it before the agent runs with them."""
    return load_config(config_path(options.config, os.environ), os.environ)
