"""A real PostgreSQL on a cluster that a test made: Debian's, or the one in WA_TEST_POSTGRES."""

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from tests.lacking import lacks

CALLED_WITHIN = 120.0
"""Seconds: a server that stands still would hold its caller for ever."""


def _as_postgres() -> list[str]:
    """initdb refuses root; the cluster belongs to Debian's own user then."""
    return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


def _run(command: Sequence[Any], read: bytes = b"") -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=CALLED_WITHIN, input=read)


def _programs() -> Path:
    """Debian's newest, or those in the folder that WA_TEST_POSTGRES names."""
    if named := os.environ.get("WA_TEST_POSTGRES"):
        assert (Path(named) / "postgres").exists(), f"WA_TEST_POSTGRES: no postgres in {named}"
        return Path(named)
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
    """A cluster of its own, reached through a Unix socket, and at `listen` (HOST:PORT)."""

    def __init__(
        self, folder: Path, *options: str, listen: str = "", inside: Sequence[str] = ()
    ) -> None:
        """`inside`: a command that runs the server somewhere else, in a network of its own."""
        self._bin = _programs()
        self.folder = folder
        self.url = f"postgresql://owner@/whatsapp?host={folder}"
        self._as = _as_postgres()
        folder.mkdir()
        if self._as:
            shutil.chown(folder, "postgres")
        subprocess.run(["cp", "-a", _new_cluster(self._bin), folder / "data"], check=True)
        if listen:
            with (folder / "data/pg_hba.conf").open("a") as rules:
                rules.write("host all all 0.0.0.0/0 trust\n")
        host, _, port = listen.rpartition(":")
        server = [*inside, *self._as, self._bin / "postgres", "-D", folder / "data", "-k", folder]
        options = options or ("-c", "fsync=off")
        if port:
            options += ("-c", f"port={port}")
            self.url += f"&port={port}"
        self._port = port or "5432"
        self._server = [*server, "-c", f"listen_addresses={host}", *options]
        self.begin()

    def begin(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            self._server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 90
        while subprocess.run(
            [self._bin / "pg_isready", "-h", self.folder, "-p", self._port, "-q"], check=False
        ).returncode:
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.05)

    def _run(self, program: str, *arguments: Any) -> None:
        _run([*self._as, self._bin / program, *arguments])

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
        command += ["-p", self._port, "-U", "owner", database]
        done = subprocess.run(
            command,
            input=text,
            text=True,
            check=True,
            capture_output=True,
            timeout=CALLED_WITHIN,
        )
        return done.stdout

    def dump(self, target: Path) -> Path:
        command = [self._bin / "pg_dump", "-h", self.folder, "-p", self._port]
        command += ["-U", "owner", "whatsapp"]
        with target.open("wb") as file:
            subprocess.run(
                command, check=True, stdout=file, stderr=subprocess.PIPE, timeout=CALLED_WITHIN
            )
        return target

    def signal(self, number: int) -> None:
        """Send a signal to the server and to each process that answers a connection."""
        self._process.send_signal(signal.SIGSTOP)  # so that it begins no further one meanwhile
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # its client is gone
                process.send_signal(number)
        self._process.send_signal(number)

    def take_writes(self, takes: bool) -> None:
        """Whether anything can be changed, in connections that are open, too."""
        of_all = "RESET default_transaction_read_only"
        if not takes:
            of_all = "SET default_transaction_read_only = on"
        self.sql(f"SET default_transaction_read_only = off; ALTER SYSTEM {of_all};")
        self.sql("SELECT pg_reload_conf()")

    def back_up(self) -> Path:
        """A copy of the whole cluster as it is now, for `replace_by`."""
        target = Path(tempfile.mkdtemp(prefix="copy-", dir=self.folder.parent))
        if self._as:
            shutil.chown(target, "postgres")
        of = f"host={self.folder} port={self._port} user=owner"
        how = ("--checkpoint=fast", "--no-sync")
        self._run("pg_basebackup", "-D", target / "data", "-d", of, *how)
        return target

    def replace_by(self, backup: Path) -> None:
        """Go on as that copy: what was written since is lost."""
        self.kill()
        shutil.rmtree(self.folder / "data")
        (backup / "data").rename(self.folder / "data")
        self.begin()

    def standby(self) -> "Postgres":
        """A server that follows this one through its socket, until it is promoted."""
        follower = copy(self)
        follower.folder = self.back_up()
        here, there = str(self.folder), str(follower.folder)
        follower.url = self.url.replace(here, there)
        follower._server = [str(it).replace(here, there) for it in self._server]
        data = follower.folder / "data"
        (data / "standby.signal").touch()
        with (data / "postgresql.auto.conf").open("a") as settings:
            settings.write(
                f"primary_conninfo = 'host={self.folder} port={self._port} user=owner'\n"
            )
        follower.begin()
        return follower

    def kill(self) -> None:
        """All its processes at once, as when its machine loses power."""
        processes = psutil.Process(self._process.pid).children(recursive=True)
        self.signal(signal.SIGKILL)
        self._process.wait(CALLED_WITHIN)
        _, alive = psutil.wait_procs(processes, timeout=20)
        assert not alive, f"the server's processes live on: {alive}"
        (self.folder / "data/postmaster.pid").unlink(missing_ok=True)

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


@contextmanager
def temporary_postgres(
    *options: str, listen: str = "", inside: Sequence[str] = ()
) -> Iterator[Postgres]:
    # Not below tmp_path: pytest shuts everybody else, Debian's user too, out of its folder.
    with tempfile.TemporaryDirectory(prefix="wa-pg-", dir="/tmp") as place:
        Path(place).chmod(0o711)
        server = Postgres(Path(place) / "pg", *options, listen=listen, inside=inside)
        try:
            yield server
        finally:
            server.end()
