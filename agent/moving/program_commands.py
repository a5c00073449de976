"""`programs`: what agent.toml declares, and what their units must show them; doctor's checks."""

import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from agent.cli.client import config_path
from agent.cli.command import Commands, Options, Words
from agent.cli.doctor import Finding, Installation, note, ok, wrong
from agent.config.load import load_config
from agent.engines.program.declaration import ProgramDeclaration
from agent.engines.program.environment import find_command, read_environment_file
from agent.errors import EngineError, InvalidRequest, NotFound
from agent.moving.programs import hide_values, programs_of, render_drop_in

_DROP_INS = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system")


def add(commands: Commands) -> None:
    config = {"--config FILE": "agent.toml"}
    among = Commands(commands.add("programs", list_programs, words=config))
    words: Words = {"PROGRAM": "the program's name", **config}
    among.add("drop-in", drop_in, "shopbot > program.conf", words)


def list_programs(options: Options) -> int:
    """List the programs that may run as instances."""
    keys = ("name", "folder", "library", "environment")
    programs = [hide_values(program) for program in _declared(options)]
    rows = [{key: getattr(program, key) for key in keys} for program in programs]
    for row, program in zip(rows, programs, strict=True):
        row["command"] = shlex.join(program.command)
    return options.print_rows(
        rows,
        {"NAME": "name", "COMMAND": "command", "FOLDER": "folder", "LIBRARY": "library"},
        nothing="no programs: [[program]] in agent.toml names them",
    )


def drop_in(options: Options) -> int:
    """Print a systemd drop-in with the rights that a program's unit needs."""
    declared = {program.name: program for program in _declared(options)}
    if options.program not in declared:
        names = ", ".join(declared) or "none"
        raise NotFound(f"cannot find the program {options.program}; declared: {names}")
    text = render_drop_in(declared[options.program])
    if not text and not options.json:
        print(
            f"{options.program} needs no drop-in: a session's unit has all rights that it needs",
            file=sys.stderr,
        )
    path = "/etc/systemd/system/wa-instance@INSTANCE.service.d/program.conf"
    return options.print({"path": path, "text": text}, text.removesuffix("\n"))


def _declared(options: Options) -> tuple[ProgramDeclaration, ...]:
    """From the settings alone: the operator needs it before the agent runs with them."""
    return programs_of(load_config(config_path(options.config, os.environ), os.environ))


def examine(here: Installation) -> Iterator[Finding]:
    """For the doctor; starts nothing."""
    for program in programs_of(here.config):
        yield replace(_examine(program, here), check=f"program {program.name}")


def _examine(program: ProgramDeclaration, here: Installation) -> Finding:
    if program.environment and here.file and here.file.stat().st_mode & 0o004:
        return wrong("its variables are in a file open to all users", f"chmod o-rwx {here.file}")
    cure = f"correct [[program]] {program.name} in agent.toml, or put back what it names"
    given = dict(entry.split("=", 1) for entry in program.environment)
    try:
        of_file = read_environment_file(program.environment_file)
        find_command(program, {**os.environ, **given, **of_file})
        hides = here.installed and render_drop_in(program)
    except (EngineError, InvalidRequest) as error:
        return wrong(str(error), cure)
    there = (path for place in _DROP_INS for path in Path(place).glob("wa-instance@*.service.d/*"))
    if hides and not any(there):
        words = "a session's unit hides folders that it needs, and no drop-in shows them"
        return note(words, f"wa-agent programs drop-in {program.name}")
    return ok("its command, folder and files are there")
