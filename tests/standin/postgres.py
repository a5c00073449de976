"""A real PostgreSQL, Debian's, on a cluster that a test made."""

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from tests.lacking import lacks

CALLED_WITHIN = 120.0
"""Seconds: a server that stands still would hold its caller for ever."""


def _as_postgres() -> list[str]:
    """initdb refuses root; the cluster belongs to Debian's own user then."""
    return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


def _run(command: Sequence[Any], read: bytes = b"") -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=CALLED_WITHIN, input=read)


def _programs() -> Path:
    """Debian's newest."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        lacks("PostgreSQL is not installed")
    return found[-1].parent


@cache
def _new_cluster(bin: Path) -> Path:
    """The files of a cluster that has never run, with an empty database: made once by each process
    of the tests, and copied for each server, for a tenth of what it costs to make them."""
    place = Path(tempfile.mkdtemp(prefix="wa-pg-", dir="/tmp"))
    place.chmod(0o711)
    atexit.register(shutil.rmtree, place)
    made = place / "new"
    made.mkdir()
    if _as_postgres():
        shutil.chown(made, "postgres")
    data = made / "data"
    initdb = [bin / "initdb", "--pgdata", data, "--no-sync", "--username", "owner"]
    _run([*_as_postgres(), *initdb])
    alone = [bin / "postgres", "--single", "-D", data, "-c", "fsync=off", "postgres"]
    _run([*_as_postgres(), *alone], b"CREATE DATABASE whatsapp\n")
    return data


class Postgres:
    """A cluster of its own, reached through a Unix socket."""

    def __init__(self, folder: Path) -> None:
        """Start it, and wait until it answers."""
        self._bin = _programs()
        self.folder = folder
        self.url = f"postgresql://owner@/whatsapp?host={folder}"
        folder.mkdir()
        if as_user := _as_postgres():
            shutil.chown(folder, "postgres")
        subprocess.run(["cp", "-a", _new_cluster(self._bin), folder / "data"], check=True)
        server = [*as_user, self._bin / "postgres", "-D", folder / "data", "-k", folder]
        server += ["-c", "listen_addresses=", "-c", "fsync=off"]
        self._process = subprocess.Popen(
            server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 90
        while subprocess.run(
            [self._bin / "pg_isready", "-h", self.folder, "-q"], check=False
        ).returncode:
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.05)

    def sql(self, text: str, database: str = "whatsapp") -> str:
        """What it answers: a line for each row."""
        command = [
            self._bin / "psql",
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            self.folder,
        ]
        command += ["-U", "owner", database]
        done = subprocess.run(
            command, input=text, text=True, check=True, capture_output=True, timeout=CALLED_WITHIN
        )
        return done.stdout

    def dump(self, target: Path) -> Path:
        command = [self._bin / "pg_dump", "-h", self.folder]
        command += ["-U", "owner", "whatsapp"]
        with target.open("wb") as file:
            subprocess.run(
                command, check=True, stdout=file, stderr=subprocess.PIPE, timeout=CALLED_WITHIN
            )
        return target

    def end(self) -> None:
        if self._process.poll() is not None:
            return
        with suppress(OSError):
            postmaster = int((self.folder / "data/postmaster.pid").read_text().split()[0])
            os.kill(postmaster, signal.SIGINT)  # a SIGTERM would wait for its clients
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
