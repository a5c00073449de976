"""A real PostgreSQL: Debian's own server on a cluster that a test made."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.lacking import lacks


class Postgres:
    """A cluster of its own, reached through a Unix socket."""

    def __init__(self, folder: Path, *options: str) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        if not found:
            lacks("PostgreSQL is not installed")
        self._bin = found[-1].parent
        self.folder = folder
        self.url = f"postgresql://owner@/whatsapp?host={folder}"
        # initdb refuses root; the cluster belongs to Debian's own user then.
        self._as = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        folder.mkdir()
        if self._as:
            shutil.chown(folder, "postgres")
        self._run("initdb", "--pgdata", folder / "data", "--no-sync", "--username", "owner")
        command = [*self._as, self._bin / "postgres", "-D", folder / "data", "-k", folder]
        self._process = subprocess.Popen(
            [*command, "-c", "listen_addresses=", *(options or ("-c", "fsync=off"))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 90
        while subprocess.run(
            [self._bin / "pg_isready", "-h", folder, "-q"], check=False
        ).returncode:
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.05)
        self.sql("CREATE DATABASE whatsapp", database="postgres")

    def _run(self, program: str, *arguments: Any) -> None:
        command = [*self._as, self._bin / program, *arguments]
        subprocess.run(command, check=True, capture_output=True)

    def sql(self, text: str, database: str = "whatsapp") -> None:
        command = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", self.folder, "-U", "owner"]
        subprocess.run([*command, database], input=text, text=True, check=True, capture_output=True)

    def dump(self, target: Path) -> Path:
        command = [self._bin / "pg_dump", "-h", self.folder, "-U", "owner", "whatsapp"]
        target.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
        return target

    def signal(self, number: int) -> None:
        """Send a signal to the server and to each process that answers a connection."""
        for process in psutil.Process(self._process.pid).children(recursive=True):
            process.send_signal(number)
        self._process.send_signal(number)

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def temporary_postgres(*options: str) -> Iterator[Postgres]:
    # Not below tmp_path: pytest shuts everybody else, Debian's user too, out of its folder.
    with tempfile.TemporaryDirectory(prefix="wa-pg-", dir="/tmp") as place:
        Path(place).chmod(0o711)
        server = Postgres(Path(place) / "pg", *options)
        try:
            yield server
        finally:
            server.end()
