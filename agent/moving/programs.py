"""[[program]] of agent.toml: its checks, its secrets, where its session lies, and what its unit
must show it."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from os.path import normpath, realpath
from pathlib import Path

from agent.config.config import Config, Table
from agent.core.setting import HIDDEN
from agent.engines.program.declaration import ProgramDeclaration, find_faults
from agent.errors import InvalidRequest

_HOMES = ("/home", "/root", "/run/user")
_HIDDEN = (*_HOMES, "/var", "/tmp", "/etc/wa-agent")
"""Folders that wa-instance@.service hides; it shows all else, read-only."""
_AGENTS = ("/etc/wa-agent", "/var/lib/wa-agent", "/run/wa-agent")


def programs_of(config: Config) -> tuple[ProgramDeclaration, ...]:
    return config.rows.get("program", ())


def hide_values(program: ProgramDeclaration) -> ProgramDeclaration:
    """Return the program with the names of its environment, without the values."""
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
    """Return one word for all names of a folder: links and bind mounts lead to one."""
    try:
        found = Path(path).stat()
    except OSError:  # not there yet, or not for this user to see
        return realpath(path)
    return f"{found.st_dev}:{found.st_ino}"


def render_drop_in(program: ProgramDeclaration) -> str:
    """Return the drop-in that shows a program the files which a session's unit hides; "" = it hides
    none of them. InvalidRequest: no unit may have them."""
    first = shutil.which(program.command[0])
    # Files that a program loads lie beside the files that its command names.
    files = (word for word in (first or "", *program.command) if word.startswith("/"))
    read = {parent for file in files if _below(parent := str(Path(file).parent), _HIDDEN)}
    write = [path for path in (program.folder, program.session) if path.startswith("/")]
    for path in (*read, *write):
        real = realpath(path)
        if real == "/" or any(_below(real, [own]) or _below(own, [real]) for own in _AGENTS):
            words = f"cannot show {path} to {program.name}: the agent's own files lie there"
            words += "; give the program a folder of its own"
            raise InvalidRequest(words, field="folder", code="not_its_own")
    read |= {path for path in [program.environment_file] if _below(path, _HIDDEN)}
    hidden = [path for path in sorted(read) if not _below(path, write)]
    lines = [f"BindReadOnlyPaths={_quoted(path)}" for path in hidden]
    lines += [f"BindPaths={_quoted(path)}" for path in write]
    if not lines:
        return ""
    if any(_below(path, _HOMES) for path in (*hidden, *write)):
        lines.insert(0, "ProtectHome=tmpfs")
    head = f"# Paths of {program.name} besides its session's: [[program]] in agent.toml."
    return "\n".join([head, "[Service]", *lines]) + "\n"


def _quoted(path: str) -> str:
    """Quote a path as systemd reads it back, so that no other setting can stand in its line."""
    if not path.isprintable():
        raise InvalidRequest(f"cannot write {path!r:.80} into a unit: it has control characters")
    plain = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return path if re.fullmatch(r"[\w./@+=,-]+", path, re.ASCII) else f'"{plain}"'


def _below(path: str, folders: Sequence[str]) -> bool:
    return any(path == own or path.startswith(f"{own.rstrip('/')}/") for own in folders)


HEAD = """\
# Programs: bots of your own that run as instances of the engine "program". Each begins with
# [[program]]; `wa-agent create shop --engine program --program shopbot` makes an instance of one.
# A change holds from each instance's next start.
# [[program]]
"""

PROGRAMS = Table(
    name="program",
    plain=ProgramDeclaration(),
    needed=("name", "command"),
    faults=find_faults,
    hide=hide_values,
    head=HEAD,
    example=ProgramDeclaration(
        name="shopbot",
        command=("node", "/srv/shopbot/bot.js"),
        environment_file="/srv/shopbot/.env",
    ),
)
