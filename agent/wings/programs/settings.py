"""[[program]]: the table, and the checks of its rows."""

from collections.abc import Sequence
from dataclasses import replace
from os.path import normpath, realpath
from pathlib import Path

from agent.config.config import Config
from agent.config.problem import Problem
from agent.config.wing_tables import ArrayTable
from agent.core.setting import HIDDEN
from agent.engines.program.declaration import ProgramDeclaration, find_faults


def programs_of(config: Config) -> tuple[ProgramDeclaration, ...]:
    return config.of_wings.get("program", ())


def find_program_problem(programs: Sequence[ProgramDeclaration]) -> Problem | None:
    """The first fault, or None."""
    names: set[str] = set()
    for number, program in enumerate(programs):
        for key, cause in find_faults(program):
            return Problem((f"program[{number}].{key}", f"program[{number}]"), cause)
        if program.name in names:
            return Problem((f"program[{number}].name",), f"{program.name} is declared twice")
        names.add(program.name)
    return None


def hide_values(program: ProgramDeclaration) -> ProgramDeclaration:
    """Names of its environment without the values."""
    names = (entry.partition("=")[0] for entry in program.environment)
    return replace(program, environment=tuple(f"{name}={HIDDEN}" for name in names))


def place_of(program: ProgramDeclaration) -> tuple[str, ...]:
    """A relative `session` lies in each instance's own folder, as all does without `folder`. In one
    folder a command or a variable may choose the session; WA_INSTANCE alone is no proof of it."""
    if program.session.startswith("/"):
        return (normpath(program.session), _folder_itself(program.session))
    if not program.folder or program.session:
        return ()
    given = (*program.command, "", *program.environment, "", program.environment_file)
    return (normpath(program.folder), _folder_itself(program.folder), *given)


def _folder_itself(path: str) -> str:
    """The same for all its names: links and bind mounts are ways to one folder."""
    try:
        found = Path(path).stat()
    except OSError:  # not there yet, or not for this user to see
        return realpath(path)
    return f"{found.st_dev}:{found.st_ino}"


HEAD = """\
# Programs: bots of your own that run as instances of the engine "program". Each begins with
# [[program]]; `wa-agent create shop --engine program --program shopbot` makes an instance of one.
# A change holds from each instance's next start.
# [[program]]
"""

TABLES = (
    ArrayTable(
        name="program",
        plain=ProgramDeclaration(),
        find_problem=find_program_problem,
        hide=hide_values,
        head=HEAD,
        example=ProgramDeclaration(
            name="shopbot",
            command=("node", "/srv/shopbot/bot.js"),
            environment_file="/srv/shopbot/.env",
        ),
        engine="program",
        place=place_of,
    ),
)
