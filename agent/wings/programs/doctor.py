"""doctor's checks of each program: its command, its folder, its environment file."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from agent.cli.doctor.check import Check, Installation
from agent.cli.doctor.findings import Finding, note, ok, wrong
from agent.config import INSTALLED_STATE
from agent.config.wing_tables import shared_sessions
from agent.core.model import Instance
from agent.engines.program.declaration import ProgramDeclaration
from agent.engines.program.environment import find_command
from agent.engines.program.environment_file import read_environment_file
from agent.errors import EngineError, InvalidRequest, WaError
from agent.wings.programs.reach import render_reach
from agent.wings.programs.settings import place_of, programs_of

_DROP_INS = ("etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system")


def checks(here: Installation) -> Iterator[Check]:
    """They start nothing."""
    for program in programs_of(here.config):
        yield Check(f"program {program.name}", partial(_examine, program))


def _examine(program: ProgramDeclaration, here: Installation) -> list[Finding]:
    findings = [*_files(program), *_unit(program, here), *_shared(program, here)]
    return findings or [ok("its command, folder and files are there")]


def _files(program: ProgramDeclaration) -> Iterator[Finding]:
    given = dict(entry.split("=", 1) for entry in program.environment)
    cure = f"correct [[program]] {program.name} in agent.toml, or put back what it names"
    try:
        of_file = read_environment_file(program.environment_file)
        find_command(program, {**os.environ, **given, **of_file})
    except EngineError as error:
        yield wrong(str(error), cure)


def _shared(program: ProgramDeclaration, here: Installation) -> Iterator[Finding]:
    """Where an agent answers, which knows the instances."""
    if not place_of(program) or not here.running["program"]:
        return
    try:
        ids = [row["id"] for row in here.client.instances(engine="program") if row["enabled"]]
        rows = [here.client.get(f"/api/instance/{id}/details") for id in ids]
    except WaError:
        return  # the agent's own check says why it does not answer
    shown = [Instance(row["id"], "program", True, row["settings"]) for row in rows]
    for one, other in shared_sessions(here.config, shown):
        if any(program.name == its.settings.get("program") for its in shown if its.id == other):
            words = f"{one} and {other} run one session, in {place_of(program)[0]}"
            yield wrong(words, f"wa-agent disable {other}, or give it a `session` of its own")


def _unit(program: ProgramDeclaration, here: Installation) -> Iterator[Finding]:
    """Of an installation: its unit hides most folders."""
    if here.config.agent.state_path != INSTALLED_STATE:
        return
    try:
        needs = render_reach(program)
    except InvalidRequest as error:
        yield wrong(str(error), f"correct [[program]] {program.name} in agent.toml")
        return
    if not needs:
        return
    places = (Path("/") / place for place in _DROP_INS)
    if not any(any(place.glob("wa-instance@*.service.d/*.conf")) for place in places):
        words = "a session's unit hides folders that it needs, and no drop-in shows them"
        yield note(words, f"wa-agent programs drop-in {program.name}")
