"""Where pm2's list is: with its daemon where that runs, else in what `pm2 save` wrote."""

import os
import pwd
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.cli.copies.transfer import open_source
from agent.wings.programs.moved import LARGEST

_WITHIN = 60.0


@dataclass(frozen=True, slots=True)
class Pm2List:
    raw: bytes
    source: str
    """What it was read from, for people."""
    command: str
    """How the owner of this pm2 types its command."""


def read_pm2(dump: str, env: Mapping[str, str]) -> Pm2List:
    """`dump`: that file and no other; "" = the daemon's list, else its dump."""
    if dump:
        home = Path(dump).absolute().parent
        return Pm2List(_read(Path(dump)), _aged(Path(dump)), _command(home, env))
    home = _home(env)
    if (program := shutil.which("pm2", path=env.get("PATH"))) and _answers(home):
        # Not without a daemon: pm2 would start one.
        with suppress(OSError, subprocess.SubprocessError):
            raw = subprocess.check_output(
                [program, "jlist", "--silent"],
                env={**env, "PM2_HOME": str(home)},
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_WITHIN,
            )
            return Pm2List(raw[:LARGEST], "pm2 jlist", _command(home, env))
    file = home / "dump.pm2"
    return Pm2List(_read(file), _aged(file), _command(home, env))


def _home(env: Mapping[str, str]) -> Path:
    """With sudo, that of the person who typed it, where root has none."""
    if named := env.get("PM2_HOME"):
        return Path(named)
    own = Path(env.get("HOME", "/root")) / ".pm2"
    person = env.get("SUDO_USER", "")
    if own.is_dir() or not person:
        return own
    try:
        return Path(pwd.getpwnam(person).pw_dir) / ".pm2"
    except KeyError:
        return own


def _answers(home: Path) -> bool:
    """A daemon of this very user runs there: a command of another one would leave its files."""
    try:
        pid = int((home / "pm2.pid").read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        return home.stat().st_uid == os.geteuid() and b"PM2" in words
    except (OSError, ValueError):
        return False


def _command(home: Path, env: Mapping[str, str]) -> str:
    """`pm2`, as its owner, with its folder where that is not the usual one."""
    words = [] if home == Path(env.get("HOME", "/root")) / ".pm2" else [f"PM2_HOME={home}"]
    try:
        owner = home.stat().st_uid
        if owner != os.geteuid():
            words = ["sudo", "-u", pwd.getpwuid(owner).pw_name, "env", f"PM2_HOME={home}"]
    except (OSError, KeyError):
        pass
    return shlex.join([*words, "pm2"])


def _read(path: Path) -> bytes:
    with open_source(path, "dump") as file:
        return file.read(LARGEST)


def _aged(path: Path) -> str:
    minutes = max(time.time() - path.stat().st_mtime, 0) / 60
    return f"{path}, which `pm2 save` wrote {minutes:.0f} minutes ago"
