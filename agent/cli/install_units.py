"""`install-units`: a service of this machine, from a program that pip installed."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from agent.cli.command import Subparsers, Words, add_command
from agent.errors import Refused

PREFIX = "/usr/local/lib/wa-agent"
_HIDDEN = tuple(map(Path, ("/home", "/root", "/tmp", "/var", "/run")))
"""The services cannot read below these."""
_CLEAN = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
}


def add(commands: Subparsers) -> None:
    words: Words = {
        "--with ENGINE": (
            "baileys: also fetch the npm packages of this engine",
            {"dest": "engine", "choices": ("baileys",)},
        ),
        "--remove": "take the service away; every session stays",
    }
    add_command(commands, "install-units", install_units, words=words)


def install_units(options: argparse.Namespace) -> int:
    """Make this program, installed by pip as root, a service of the machine."""
    program = Path(sys.prefix)
    share = program / "share" / "wa-agent" / "scripts"
    if sys.prefix == sys.base_prefix or not (share / "install-units").is_file():
        raise Refused(
            f"cannot install units for {program}: install the program by pip into a virtual"
            " environment of its own, as /opt/wa-agent-venv; a checkout has scripts/install",
            code="no_environment",
        )
    if os.geteuid() != 0:
        raise Refused("cannot install units: run it as root", code="not_root")
    _refuse_foreign(program)
    baileys = ("--baileys", "yes") if options.engine else ()
    arguments = (share / "install-units", "--prefix", PREFIX, "--program", program, *baileys)
    if options.remove:
        arguments = (share / "uninstall", "--prefix", PREFIX)
    return subprocess.run(["/bin/sh", *arguments], env=_CLEAN, check=False).returncode


def _refuse_foreign(program: Path) -> None:
    """Root and the services run what lies there: root alone may be able to change it."""
    python = Path(sys.executable).resolve()
    for place in (program.resolve(), python):
        if any(place.is_relative_to(hidden) for hidden in _HIDDEN):
            raise Refused(f"cannot install units: the services cannot read {place}", code="hidden")
    for path in (python, *python.parents, *program.resolve().parents, program, *program.rglob("*")):
        if not _is_roots_alone(path):
            raise Refused(
                f"cannot install units: not only root may change {path}", code="not_only_roots"
            )


def _is_roots_alone(path: Path) -> bool:
    """A link's target counts too, and every folder on the way to it."""
    if path.is_symlink():
        target = path.resolve()
        return path.lstat().st_uid == 0 and all(map(_is_roots_alone, (target, *target.parents)))
    try:
        status = path.stat()
    except FileNotFoundError:
        return True  # where a link leads to nothing, its folders say who may put something there
    return status.st_uid == 0 and not status.st_mode & 0o022
