"""The PostgreSQL of a trial: Debian's server, its cluster in the state folder, on loopback."""

import asyncio
import os
import secrets
import shutil
import subprocess
from pathlib import Path

import psycopg

from agent.errors import ConfigError, HostError
from agent.fleet.postgres.schema import prepare

OWNER, ROLE, NAME = "owner", "agent", "fleet"
STARTS_WITHIN = 60.0


class Cluster:
    """Its files in `folder`; only who may read the folder's passwords may log in."""

    def __init__(self, folder: Path, port: int) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        if not found:
            raise ConfigError("PostgreSQL is not installed: ./scripts/packages postgresql")
        self._bin, self._folder, self.port = found[-1].parent, folder, port
        self.password_file = folder.parent / "database.password"
        self.address = f"postgresql://{ROLE}@127.0.0.1:{port}/{NAME}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if not (self._folder / "data/PG_VERSION").exists():
            self._make()
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        self.process = subprocess.Popen(
            self._command("postgres", "-D", "data", "-p", str(self.port), *options),
            stdin=subprocess.DEVNULL,
            stdout=(self._folder.parent / "postgres.log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    async def until_ready(self) -> None:
        """It answers, and has the tables and the agents' role."""
        owner = f"postgresql://{OWNER}@127.0.0.1:{self.port}/"
        owner_password = self._password("owner.password")
        look = f"look at {self._folder.parent}/postgres.log"
        try:
            async with asyncio.timeout(STARTS_WITHIN):
                while not await self._has_database(owner + "postgres", owner_password):
                    if self.process is None or self.process.poll() is not None:
                        raise HostError(f"PostgreSQL ended: {look}")
                    await asyncio.sleep(0.1)
        except TimeoutError:
            sentence = f"PostgreSQL does not answer after {STARTS_WITHIN:g} s: {look}"
            raise HostError(sentence) from None
        password = self._password(self.password_file.name)
        of = psycopg.conninfo.make_conninfo(owner + NAME, password=owner_password)
        await prepare(of)
        async with await psycopg.AsyncConnection.connect(of) as connection:
            known = await connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (ROLE,))
            if await known.fetchone() is None:
                await connection.execute(
                    psycopg.sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                        psycopg.sql.Identifier(ROLE), psycopg.sql.Literal(password)
                    )
                )
                await connection.execute(f"GRANT wa_agent_machine TO {ROLE}")

    async def _has_database(self, address: str, password: str) -> bool:
        try:
            connection = await psycopg.AsyncConnection.connect(
                address, password=password, autocommit=True
            )
        except psycopg.OperationalError:
            return False
        async with connection:
            found = await connection.execute("SELECT FROM pg_database WHERE datname = %s", (NAME,))
            if await found.fetchone() is None:
                await connection.execute(f"CREATE DATABASE {NAME}")
        return True

    def _make(self) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        shutil.rmtree(self._folder / "data", ignore_errors=True)  # half made
        handed = self._folder / "password"
        handed.touch(0o600)
        handed.write_text(self._password("owner.password"))
        if os.geteuid() == 0:
            for path in (self._folder, handed):
                shutil.chown(path, "postgres", "postgres")
        told = ["--auth=scram-sha-256", f"--username={OWNER}", "--pwfile=password"]
        command = self._command("initdb", "--pgdata=data", *told)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        handed.unlink()
        if done.returncode:
            raise HostError(f"cannot make a cluster in {self._folder}: {done.stderr.strip()}")

    def _command(self, program: str, *arguments: str) -> list[str]:
        """The server refuses root: then it runs as Debian's own user, which may not read the way
        to the state folder, and sees the cluster in a place of its own."""
        words = [str(self._bin / program), *arguments]
        enter = 'cd "$0" && exec "$@"'
        if os.geteuid() != 0:
            return ["/bin/sh", "-c", enter, str(self._folder), *words]
        place = "/var/lib/postgresql"
        mount = f'mount --bind "$0" {place} && cd {place} && exec "$@"'
        inside = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--", *words]
        return ["unshare", "--mount", "/bin/sh", "-c", mount, str(self._folder), *inside]

    def _password(self, name: str) -> str:
        file = self._folder.parent / name
        if not file.exists():
            file.touch(0o600)
            file.write_text(secrets.token_urlsafe(24))
        return file.read_text().strip()
