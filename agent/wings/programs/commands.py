"""`programs`: what agent.toml declares, and what their units must be allowed to read."""

import argparse
import os
import shlex
import sys

from agent.cli.command import Subparsers, add_command, name_of_a, wants_json
from agent.cli.paths import config_path
from agent.cli.terminal.answer import print_answer, print_list
from agent.config import Config, load_config
from agent.engines.program.declaration import ProgramDeclaration
from agent.errors import NotFound
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


def _find(options: argparse.Namespace) -> ProgramDeclaration:
    declared = {program.name: program for program in programs_of(_config(options))}
    if options.program not in declared:
        names = ", ".join(declared) or "none"
        raise NotFound(f"cannot find the program {options.program}; declared: {names}")
    return declared[options.program]


def _config(options: argparse.Namespace) -> Config:
    """From the settings alone: the operator needs it before the agent runs with them."""
    return load_config(config_path(options.config, os.environ), os.environ)
