"""Several trials do these to this machine and its processes."""

import os
import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def own_disks(size: str, *folders: Path) -> Iterator[None]:
    """A file system in each of these folders, which it makes; only root can mount one."""
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)]
            subprocess.run(mount, check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", *map(str, folders)], check=False)


def send(number: signal.Signals, pids: Iterable[int]) -> None:
    """To those that have not ended yet."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def ip(words: str, *, check: bool = True) -> str:
    """Run `ip` with `words`; return its output."""
    command = ["ip", *words.split()]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=check).stdout
