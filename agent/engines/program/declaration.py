"""One [[program]] of agent.toml: the command of the user's own bot. Standard library only. Commands
come from there alone: an instance names a program, and no more."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from agent.core.setting import Fault, name_fault, path_fault, setting

RESERVED = frozenset(
    [
        *("WA_INSTANCE", "WA_SESSION", "WA_PROGRAM_MESSAGES", "WA_PROGRAM_FD"),
        *("WA_PROGRAM_FD_IS", "WA_PROGRAM_NODE_OPTIONS"),  # for its preload in a Node
        *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
    ]
)
"""Variables that the worker sets for a program, and WATCHDOG_PID, which would silence the last."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
LIBRARIES = ("auto", "none")
PM2 = ("no", "signal", "message")


@dataclass(frozen=True, slots=True)
class ProgramDeclaration:
    """Durations are seconds."""

    name: str = setting("", "name of the program here: [a-z0-9][a-z0-9_-]{0,47}", check=name_fault)
    command: tuple[str, ...] = setting(
        (), "the program and its arguments, one text each; no shell reads them"
    )
    folder: str = setting(
        "",
        'folder that it runs in; "" = its session\'s own, where files with relative names then lie',
        check=path_fault,
    )
    environment: tuple[str, ...] = setting(
        (), "NAME=VALUE, one text each, of its environment", secret=True
    )
    environment_file: str = setting(
        "", "file with more NAME=VALUE lines, read at each start; its values stay out of the log",
        check=path_fault,
    )  # fmt: skip
    user: str = setting("", 'user that it must run as; "" = the worker\'s')
    session: str = setting(
        "", 'where it keeps its session: a folder in its session\'s own, or a path; "" = found'
    )
    library: str = setting(
        "auto",
        "auto = the library that a Node program uses is noticed; none = nothing is loaded into it",
        choices=LIBRARIES,
    )
    pm2: str = setting(
        "no",
        "signal, message = it has what pm2 gave it: process.send, and a standard input that stays"
        ' open; it is asked to end by SIGINT, or by the message "shutdown"',
        choices=PM2,
    )
    watchdog: float = setting(
        0.0,
        "seconds without its WATCHDOG=1 after which it is ended and started again; 0 = none wanted",
        low=0,
        high=86_400,
    )
    stop: float = setting(
        10.0, "seconds that it may take to end by itself, before it is killed", low=0.1, high=600
    )
    starts: int = setting(
        5, "ends within ten minutes after which it counts as failing", low=1, high=100
    )


def find_faults(program: ProgramDeclaration) -> Iterator[Fault]:
    """Never with a value of the environment."""
    if any("\0" in part for part in program.command):
        yield ("command",), "no program takes a zero byte"
    for key in ("folder", "environment_file", "session"):
        if not getattr(program, key).isprintable():
            yield (key,), "it has control characters, and a unit of systemd names it"
    if ".." in program.session.split("/"):
        yield ("session",), f"it must be a path without .., not {program.session!r:.80}"
    if program.command and "/" in (first := program.command[0]) and not first.startswith("/"):
        yield ("command",), f"its program must be a name or an absolute path, not {first!r:.80}"
    for number, entry in enumerate(program.environment, 1):
        if fault := variable_fault(entry):
            yield ("environment",), f"entry {number}: {fault}"


def variable_fault(entry: str) -> str:
    """Why NAME=VALUE cannot be set; never with the value."""
    name, mark, value = entry.partition("=")
    if not mark or not _VARIABLE.fullmatch(name):
        return "it must be NAME=VALUE"
    if "\0" in value:
        return f"the value of {name} has a zero byte"
    if name in RESERVED:
        return f"{name} is the worker's to set"
    return ""
