"""What a session's unit hides and a program needs: a drop-in that shows just that."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from agent.engines.program.declaration import ProgramDeclaration

HIDDEN = ("/home", "/root", "/run/user", "/var", "/tmp", "/etc/wa-agent")
"""What wa-instance@.service hides; all else it shows, read-only."""
_HOMES = HIDDEN[:3]


def render_reach(program: ProgramDeclaration) -> str:
    """ "" = the unit has all rights that it needs."""
    read = sorted({path for path in _read(program) if _below(path, HIDDEN)})
    write = [path for path in (program.folder, program.session) if path.startswith("/")]
    lines = [f"BindReadOnlyPaths={path}" for path in read if not _below(path, write)]
    lines += [f"BindPaths={path}" for path in write]
    if not lines:
        return ""
    if any(_below(path, _HOMES) for path in (*read, *write)):
        lines.insert(0, "ProtectHome=tmpfs")
    head = f"# What {program.name} reads and writes besides its session: [[program]] in agent.toml."
    home = next((its for its in program.environment if its.startswith("HOME=")), "")
    if _below(home.removeprefix("HOME="), HIDDEN):
        lines.append(f"# {home} is hidden: a session below it needs BindPaths= of its own folder.")
    return "\n".join([head, "[Service]", *lines]) + "\n"


def _read(program: ProgramDeclaration) -> Iterator[str]:
    """The folder of each file that its command names: what it loads lies beside it."""
    first = shutil.which(program.command[0])
    for word in (first or "", *program.command):
        if word.startswith("/"):
            yield str(Path(word).parent)
    if program.environment_file:
        yield program.environment_file


def _below(path: str, folders: tuple[str, ...] | list[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)
