"""A real PostgreSQL, Debian's, on a cluster that a test made."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.lacking import lacks

CALLED_WITHIN = 120.0
"""Seconds: a server that stands still would hold its caller for ever."""


def _run(command: Sequence[Any], read: str = "") -> None:
    subprocess.run(
        command, check=True, capture_output=True, timeout=CALLED_WITHIN, input=read, text=True
    )


class Postgres:
    """A cluster of its own with an empty database, reached through a Unix socket."""

    def __init__(self, folder: Path) -> None:
        """Start it, and wait until it answers."""
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        if not found:
            lacks("PostgreSQL is not installed")
        self._bin, self.folder = found[-1].parent, folder
        folder.mkdir()
        as_user = []
        if os.geteuid() == 0:  # initdb refuses root
            as_user = ["runuser", "-u", "postgres", "--"]
            shutil.chown(folder, "postgres")
        data = folder / "data"
        initdb = [self._bin / "initdb", "--pgdata", data, "--no-sync", "--username", "owner"]
        _run([*as_user, *initdb])
        server = [*as_user, self._bin / "postgres", "-D", data, "-k", folder]
        server += ["-c", "listen_addresses=", "-c", "fsync=off"]
        self._process = subprocess.Popen(
            server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 90
        ready = [self._bin / "pg_isready", "-h", folder, "-q"]
        while subprocess.run(ready, check=False).returncode:
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.05)
        self.sql("CREATE DATABASE whatsapp", "postgres")

    def sql(self, text: str, database: str = "whatsapp") -> None:
        command = [self._bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", self.folder]
        _run([*command, "-U", "owner", database], text)

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
