"""Connections to a real PostgreSQL with a certificate: what is refused, and that no word of it
holds the password."""

import logging
import os
import subprocess
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from agent.errors import ConfigError, TryLater, WaError
from agent.fleet.postgres.address import check_address, warn_of_address
from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.fleet.postgres.schema import prepare
from tests.ports import free_port
from tests.standin.postgres import Postgres, temporary_postgres

PASSWORD = "hunter2%26"


@dataclass(frozen=True)
class Protected:
    server: Postgres
    port: int
    ca: Path
    other_ca: Path

    def address(self, ca: Path, host: str = "db.invalid", mode: str = "verify-full") -> str:
        return (
            f"postgresql://agent:{PASSWORD}@{host}:{self.port}/whatsapp?hostaddr=127.0.0.1"
            f"&sslmode={mode}&sslrootcert={ca}"
        )

    def tls(self, on: bool) -> None:
        self.server.sql(f"ALTER SYSTEM SET ssl = {'on' if on else 'off'}")
        self.server.sql("SELECT pg_reload_conf()")


def make_ca(folder: Path, name: str) -> Path:
    openssl = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    files = ["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt"]
    subprocess.run(
        [*openssl, "-nodes", "-days", "2", "-subj", f"/CN={name}", *files],
        check=True,
        capture_output=True,
    )
    return folder / f"{name}.crt"


def sign(ca: Path, server: Postgres, host: str) -> None:
    """Put a key and its certificate into the server's folder."""
    data = server.folder / "data"
    key, request, certificate = (data / f"server.{name}" for name in ("key", "csr", "crt"))
    make = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    named = ["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"]
    signed = ["openssl", "x509", "-req", "-days", "2", "-copy_extensions", "copy", "-CA", ca]
    for command in (
        [*make, *named, "-keyout", key, "-out", request],
        [*signed, "-CAkey", ca.with_suffix(".key"), "-in", request, "-out", certificate],
    ):
        subprocess.run(command, check=True, capture_output=True)
    owner = data.stat()
    for path in (key, certificate):
        path.chmod(0o600)
        os.chown(path, owner.st_uid, owner.st_gid)


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Protected]:
    folder, port = tmp_path_factory.mktemp("ca"), free_port()
    with temporary_postgres(listen=f"127.0.0.1:{port}") as server:
        ca = make_ca(folder, "own")
        sign(ca, server, "db.invalid")
        found = Protected(server, port, ca, make_ca(folder, "other"))
        found.tls(on=True)
        server.sql("CREATE ROLE agent LOGIN")
        yield found


async def refused(address: str, caplog: pytest.LogCaptureFixture) -> WaError:
    """The error, after a look that neither it nor a log line has the password."""
    caplog.set_level(logging.DEBUG)
    coordinator = PostgresCoordinator(address, 6.0, 20.0)
    with pytest.raises(WaError) as caught:
        await coordinator.machines()
    await coordinator.close()
    words = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "hunter2" not in words
    return caught.value


async def test_a_verified_server_is_used(protected: Protected):
    await prepare(protected.server.url)
    protected.server.sql("GRANT wa_agent_machine TO agent")
    coordinator = PostgresCoordinator(protected.address(protected.ca), 6.0, 20.0)
    assert await coordinator.machines() == []
    found = coordinator._database._connection
    assert found is not None
    assert found.pgconn.ssl_in_use
    await coordinator.close()


@pytest.mark.parametrize(
    ("ca", "host", "sentence"),
    [
        pytest.param("other_ca", "db.invalid", "not signed by the CA", id="another CA"),
        pytest.param("ca", "db2.example", "for another host name", id="another host's certificate"),
    ],
)
async def test_another_server_is_refused(
    protected: Protected, caplog: pytest.LogCaptureFixture, ca: str, host: str, sentence: str
):
    error = await refused(protected.address(getattr(protected, ca), host), caplog)
    assert isinstance(error, TryLater)
    assert error.code == "fleet_database_tls"
    assert sentence in str(error)


async def test_a_server_without_tls_is_refused(
    protected: Protected, caplog: pytest.LogCaptureFixture
):
    protected.tls(on=False)
    try:
        error = await refused(protected.address(protected.ca), caplog)
    finally:
        protected.tls(on=True)
    assert error.code == "fleet_database_tls"
    assert "it offers no TLS" in str(error)


async def test_errors_about_a_ca_file_or_a_password_do_not_hold_the_password(
    protected: Protected, caplog: pytest.LogCaptureFixture
):
    error = await refused(protected.address(protected.ca.with_name("none.crt")), caplog)
    assert "none.crt" in str(error)
    hba = protected.server.folder / "data/pg_hba.conf"
    kept = hba.read_text()
    hba.write_text("hostssl all all 0.0.0.0/0 scram-sha-256\nlocal all all trust\n")
    protected.server.sql("SELECT pg_reload_conf()")
    try:
        error = await refused(protected.address(protected.ca), caplog)
    finally:
        hba.write_text(kept)
        protected.server.sql("SELECT pg_reload_conf()")
    assert "password authentication failed" in str(error)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://agent@db.invalid/whatsapp",
        "postgresql://agent@db.invalid/whatsapp?sslmode=prefer",
        "postgresql://agent@10.0.0.7/whatsapp",
        "postgresql://agent@8.8.8.8/whatsapp?sslmode=disable",
        "postgresql://agent@localhost/whatsapp?host=db.invalid",
        "postgresql://agent@localhost/whatsapp?hostaddr=10.0.0.7",
        "postgresql://agent@localhost,db.invalid/whatsapp",
        "host=/run/postgresql,10.0.0.7",
        "postgresql://agent@localhost/whatsapp?service=other",
        "postgresql://agent@[fe80::1]/whatsapp",
    ],
)
def test_an_address_over_a_network_needs_tls(address: str):
    assert check_address(address) != ""


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://agent:hunter2@db.invalid/whatsapp",
        "postgresql://agent:a@hunter2@localhost/whatsapp?sslmode=verify-full",
        "postgresql://agent:hunter2/b@localhost/whatsapp?sslmode=verify-full",
        "hunter2",
        "host=x hunter2",
    ],
)
async def test_an_address_that_may_not_be_used_opens_no_connection_and_is_not_repeated(
    address: str, caplog: pytest.LogCaptureFixture
):
    error = await refused(address, caplog)
    assert isinstance(error, ConfigError)
    assert error.field == "fleet.database"


@pytest.mark.parametrize(
    ("address", "warning"),
    [
        ("postgresql://agent@/whatsapp?host=/run/postgresql", ""),
        ("postgresql://agent@localhost/whatsapp", ""),
        ("postgresql://agent@[::1]:5433/whatsapp?sslmode=require", ""),
        ("host=db.invalid sslmode=verify-full", ""),
        ("host=db.invalid sslmode=verify-ca", "host name is not checked"),
        ("host=10.0.0.7 sslmode=disable", "nothing is encrypted"),
        ("host=db.invalid sslmode=require", "certificate is not checked"),
    ],
)
def test_an_address_that_is_protected_may_be_used(address: str, warning: str):
    assert check_address(address) == ""
    found = warn_of_address(address)
    assert (warning in found) if warning else (found == "")


def test_the_environment_of_libpq_counts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PGHOST", "db.invalid")
    assert check_address("dbname=whatsapp") != ""
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert check_address("dbname=whatsapp") == ""
    assert psycopg.conninfo.conninfo_to_dict("dbname=whatsapp") == {"dbname": "whatsapp"}
