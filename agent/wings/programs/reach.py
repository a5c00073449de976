"""What a session's unit hides and a program needs: a drop-in that shows just that."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from agent.engines.program.declaration import ProgramDeclaration
from agent.errors import InvalidRequest

HIDDEN = ("/home", "/root", "/run/user", "/var", "/tmp", "/etc/wa-agent")
"""What wa-instance@.service hides; all else it shows, read-only."""
_HOMES = HIDDEN[:3]
OURS = ("/etc/wa-agent", "/var/lib/wa-agent", "/run/wa-agent")


def render_reach(program: ProgramDeclaration) -> str:
    """ "" = the unit has all rights that it needs. InvalidRequest: no unit may have them."""
    read = sorted({path for path in _read(program) if _below(path, HIDDEN)})
    write = [path for path in (program.folder, program.session) if path.startswith("/")]
    for path in (*(its for its in read if its != program.environment_file), *write):
        _refuse_ours(program, path)
    lines = [f"BindReadOnlyPaths={_quoted(path)}" for path in read if not _below(path, write)]
    lines += [f"BindPaths={_quoted(path)}" for path in write]
    if not lines:
        return ""
    if any(_below(path, _HOMES) for path in (*read, *write)):
        lines.insert(0, "ProtectHome=tmpfs")
    head = f"# What {program.name} reads and writes besides its session: [[program]] in agent.toml."
    home = next((its for its in program.environment if its.startswith("HOME=")), "")
    if _below(home.removeprefix("HOME="), HIDDEN) and home.isprintable():
        lines.append(f"# {home} is hidden: a session below it needs BindPaths= of its own folder.")
    return "\n".join([head, "[Service]", *lines]) + "\n"


def _refuse_ours(program: ProgramDeclaration, path: str) -> None:
    real = os.path.realpath(path)
    if any(_below(real, (own,)) or _below(own, (real,)) for own in OURS) or real == "/":
        raise InvalidRequest(
            f"cannot show {path} to {program.name}: the agent's own files lie there; give the"
            " program a folder of its own",
            field="folder",
            code="not_its_own",
        )


def _quoted(path: str) -> str:
    """As systemd reads one path back: in a line of its own, no other setting can stand in it."""
    if not path.isprintable():
        raise InvalidRequest(f"cannot write {path!r:.80} into a unit: it has control characters")
    plain = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return path if re.fullmatch(r"[\w./@+=,-]+", path, re.ASCII) else f'"{plain}"'


def _read(program: ProgramDeclaration) -> Iterator[str]:
    """The folder of each file that its command names: what it loads lies beside it."""
    first = shutil.which(program.command[0])
    for word in (first or "", *program.command):
        if word.startswith("/"):
            yield str(Path(word).parent)
    if program.environment_file:
        yield program.environment_file


def _below(path: str, folders: tuple[str, ...] | list[str]) -> bool:
    return any(path == its or path.startswith(f"{its.rstrip('/')}/") for its in folders)
