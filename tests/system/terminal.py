"""Commands on a terminal of root's, and which other users' processes are on it meanwhile."""

import contextlib
import os
import pty
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.bed import Bed, clean_environment

USERS = ("wa-agent", "wa-worker")
TAKE = (
    "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execv(sys.argv[1], sys.argv[1:])"
)
"""As a login does: the terminal is what started processes have, too."""


@dataclass
class Shown:
    status: int = -1
    text: str = ""
    seen: set[str] = field(default_factory=set)
    """Command lines of the services' users that ran meanwhile."""
    on_terminal: set[str] = field(default_factory=set)
    """Those of them on a terminal."""


def on_a_terminal(bed: Bed, *command: str | Path, within: float = 300.0) -> Shown:
    ours, terminal = pty.openpty()
    shown, done = Shown(), threading.Event()
    read = threading.Thread(target=_read, args=(ours, shown))
    watch = threading.Thread(target=_watch, args=(bed, shown, done))
    inside = ["nsenter", "-t", str(bed.init), "-m", "-u", "-i", "-p", "-C", "-w", "--"]
    child = subprocess.Popen(
        ["/usr/bin/python3", "-c", TAKE, "/usr/bin/env", *inside, *map(str, command)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**clean_environment(), "DEBIAN_FRONTEND": "noninteractive"},
    )
    os.close(terminal)
    watch.start()
    read.start()
    try:
        shown.status = child.wait(within)
    finally:
        child.kill()
        child.wait()
        done.set()
        watch.join()
        read.join()
        os.close(ours)
    return shown


def _read(ours: int, shown: Shown) -> None:
    with contextlib.suppress(OSError):  # its last process has gone
        while part := os.read(ours, 65536):
            shown.text += part.decode(errors="replace")


def _watch(bed: Bed, shown: Shown, done: threading.Event) -> None:
    processes = bed.path("/proc")  # the bed's own: the outside has many more
    passwd = (bed.root / "etc/passwd").read_text().splitlines()
    uids = {row.split(":")[2] for row in passwd if row.split(":")[0] in USERS}
    while not done.wait(0.01):
        for process in processes.glob("[0-9]*"):
            with contextlib.suppress(OSError):
                status = (process / "status").read_text()
                if status.partition("\nUid:\t")[2].split("\t")[0] not in uids:
                    continue
                line = (process / "cmdline").read_text().replace("\0", " ").strip()
                terminal = (process / "stat").read_text().rpartition(")")[2].split()[4]
                if line:
                    shown.seen.add(line)
                    if terminal != "0":
                        shown.on_terminal.add(line)
