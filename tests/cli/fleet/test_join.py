"""Joining a fleet: everything is checked before a line of agent.toml changes."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.config import load_config
from agent.config.settings_file import with_keys
from agent.errors import ConfigError
from agent.fleet.certificate import ends_at, why_refused
from agent.fleet.coordinator import Machine, NewSession
from agent.fleet.key import FleetKey
from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.fleet.postgres.tables import VERSION
from tests.cli.conftest import Cli
from tests.cli.fleet.conftest import FleetApi
from tests.lacking import not_lent
from tests.ports import free_port
from tests.standin.evolution.certificates import Certificates
from tests.standin.postgres import Postgres, temporary_postgres

SETTINGS = """\
# Ours.
[agent]
state_path = "state"  # relative

[api]
listen = "127.0.0.1:8470"
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with temporary_postgres() as server:
        server.sql("CREATE ROLE agent LOGIN; CREATE ROLE strong LOGIN CREATEROLE")
        yield server


@dataclass
class Place:
    folder: Path
    server: Postgres
    cli: Cli

    @property
    def file(self) -> Path:
        return self.folder / "agent.toml"

    @property
    def database(self) -> str:
        return self.server.url.replace("owner@", "agent@")

    async def join(self, **changes: str) -> Any:
        values = {
            "config": str(self.file),
            "database": self.database,
            "name": "a",
            "listen": f"127.0.0.1:{free_port()}",
            "key-file": str(self.folder / "fleet.key"),
            **changes,
        }
        words = [word for name, value in values.items() for word in (f"--{name}", value)]
        return await self.cli("fleet", "join", *words)


@pytest.fixture
async def place(
    tmp_path: Path,
    server: Postgres,
    cli: Cli,
    api: FleetApi,
    monkeypatch: pytest.MonkeyPatch,
) -> Place:
    server.sql("DROP SCHEMA IF EXISTS wa_agent CASCADE")
    monkeypatch.setenv("WA_FLEET_OWNER", server.url)
    made = await cli("fleet", "database", "prepare", "--role", "agent")
    assert (made.status, made.out) == (
        0,
        f"the fleet's tables are of version {VERSION} now; there were none\n"
        "the login agent may speak for machines\n",
    )
    (tmp_path / "state").mkdir()
    (tmp_path / "agent.toml").write_text(SETTINGS)
    FleetKey.make(tmp_path / "fleet.key")
    api.answers["/api/instances"] = [{"instances": [{"id": "sales"}], "next": None}]
    return Place(tmp_path, server, cli)


async def test_a_machine_joins_and_its_settings_keep_their_comments(place: Place) -> None:
    said = await place.join(name="frankfurt-2")
    assert said.status == 0, said.err
    assert "agent: may do what an agent needs, and nothing else" in said.out
    assert "1 come into the fleet with this machine" in said.out
    assert "systemctl restart wa-agent" in said.out
    assert place.file.read_text().startswith(SETTINGS.rstrip("\n"))
    config = load_config(place.file, {})
    assert (config.fleet.database, config.fleet.machine) == (place.database, "frankfurt-2")
    (backup,) = place.folder.glob("agent.toml.*Z")
    assert backup.read_text() == SETTINGS
    assert list(place.folder.glob(".agent.toml*")) == []


async def test_a_session_name_that_the_fleet_has_already_is_refused(place: Place) -> None:
    key = FleetKey.read(place.folder / "fleet.key")
    coordinator = PostgresCoordinator(place.database, 20.0, 20.0)
    try:
        member = await coordinator.join(
            Machine(
                "b",
                "5e2c7f0e-9c53-4b1c-8a9e-0a4a3a0d2f11",
                engines=frozenset({"web"}),
                key_fingerprint=key.fingerprint,
            )
        )
        assert await coordinator.create(member, NewSession("sales", "sandbox"), member.id)
    finally:
        await coordinator.close()
    taken = await place.join()
    assert (taken.status, "have sessions named sales;" in taken.err) == (78, True)
    named = await place.join(name="b")
    assert (named.status, "choose another with --name" in named.err) == (78, True)
    FleetKey.make(place.folder / "other.key")
    other = await place.join(**{"key-file": str(place.folder / "other.key")})
    place.file.write_text(SETTINGS + "[fleet]\nttl = 6\nmargin = 2\n")
    impatient = await place.join()
    assert (impatient.status, "the fleet's machines have 20" in impatient.err) == (78, True)
    place.file.write_text(SETTINGS)
    assert (other.status, f"have the key {key.fingerprint}" in other.err) == (78, True)
    assert place.file.read_text() == SETTINGS


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"database": "postgresql://agent:secret-9@h/x"}, 2, "put it into a file"),
        ({"database": "postgresql://agent@127.0.0.1:1/x"}, 75, "cannot reach the fleet's database"),
        ({"database": "postgresql://agent@db.example/x"}, 78, "sslmode=verify-full"),
        ({"key-file": "/nowhere/fleet.key"}, 78, "it is missing"),
        ({"name": "a b"}, 78, "fleet.name"),
        ({"listen": "9.9.9.9:8471"}, 78, "loopback or private"),
        ({"listen": "10.255.255.1:8471"}, 78, "name a free port on an address"),
        ({"config": "/nowhere/agent.toml"}, 2, "wa-agent config init"),
    ],
)
async def test_wrong_settings_are_named_and_change_nothing(
    place: Place, changes: dict[str, str], status: int, said: str
) -> None:
    found = await place.join(**changes)
    assert (found.status, said in found.err) == (status, True), found.err
    assert "secret-9" not in found.err + found.out
    assert place.file.read_text() == SETTINGS
    assert sorted(path.name for path in place.folder.glob("*agent.toml*")) == ["agent.toml"]


async def test_a_taken_port_is_named(place: Place) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = await place.join(listen=f"127.0.0.1:{taken.getsockname()[1]}")
    assert (found.status, "name a free port" in found.err) == (78, True)


async def test_a_machine_leaves_and_only_its_database_goes_out_of_the_settings(
    place: Place, api: FleetApi
) -> None:
    assert (await place.join()).status == 0
    joined = place.file.read_text()
    gone = {"status": 404, "error": "no_fleet", "message": "no fleet", "field": None}
    api.answers["/api/fleet"] = [api.fleet, gone]
    left = await place.cli("fleet", "leave", "--config", str(place.file), "--wait", "60")
    assert left.status == 0, left.err
    assert ("/api/fleet/leave", None) in api.posted()
    assert place.file.read_text() == joined.replace("\ndatabase = ", "\n# database = ")
    assert load_config(place.file, {}).fleet.database == ""


async def test_a_login_that_may_too_much_is_named(place: Place) -> None:
    place.server.sql("GRANT wa_agent_machine TO strong; GRANT INSERT ON wa_agent.session TO strong")
    assert (await place.join()).status == 0
    good = await place.cli("fleet", "database", "check", "--config", str(place.file))
    assert (good.status, "protected" in good.out) == (0, True)
    text = place.file.read_text().replace("agent@", "strong@")
    place.file.write_text(text)
    found = await place.cli("fleet", "database", "check", "--config", str(place.file))
    assert found.status == 1
    assert "strong: may make roles; may write into the fleet's tables" in found.out


async def test_the_owners_address_comes_from_a_file_or_the_environment(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WA_FLEET_OWNER")
    missing = await place.cli("fleet", "database", "prepare")
    assert (missing.status, "WA_FLEET_OWNER" in missing.err) == (2, True)
    file = place.folder / "owner.txt"
    file.write_text(place.server.url + "\n")
    again = await place.cli("fleet", "database", "prepare", "--address-file", str(file), "--json")
    assert again.json() == {"before": VERSION, "version": VERSION, "role": None}
    words = ("--address-file", str(file), "--ttl", "6")
    assert (await place.cli("fleet", "database", "prepare", *words)).status == 0
    assert "have 6; set it" in (await place.join()).err
    file.write_text("postgresql://owner:secret-9@[")
    foul = await place.cli("fleet", "database", "prepare", "--address-file", str(file))
    assert (foul.status, "secret-9" in foul.err) == (78, False)


async def test_a_key_is_made_once_and_its_fingerprint_tells_it_from_others(place: Place) -> None:
    words = ("--config", str(place.file))
    made = await place.cli("fleet", "key", "make", *words, "--json")
    assert made.json()["file"] == str(place.folder / "state" / "fleet.key")
    assert Path(made.json()["file"]).stat().st_mode & 0o777 == 0o600
    shown = await place.cli("fleet", "key", "show-fingerprint", *words)
    assert shown.out.strip() == made.json()["fingerprint"]
    again = await place.cli("fleet", "key", "make", *words)
    assert again.status == 78


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", '[fleet]\nname = "b"\n'),
        ("[api]\n", '[api]\n\n[fleet]\nname = "b"\n'),
        ('[fleet]\nname = "a" # x\n\n[api]\n', '[fleet]\nname = "b"\n\n[api]\n'),
        ('[fleet]\n# meaning\n# name = ""\n', '[fleet]\n# meaning\nname = "b"\n'),
        ("[fleet]\nttl = 30\n\n[api]\n", '[fleet]\nttl = 30\nname = "b"\n\n[api]\n'),
    ],
)
def test_a_single_key_changes_and_every_other_line_stays(before: str, after: str) -> None:
    assert with_keys(before, "fleet", {"name": "b"}) == after


def test_a_file_that_cannot_be_changed_line_by_line_is_left_alone() -> None:
    for text in ('fleet = {name = "a"}\n', '[fleet]\nname = """\na"""\n', 'fleet.name = "a"\n'):
        with pytest.raises((ConfigError, ValueError)):
            with_keys(text, "fleet", {"name": "b"})


def test_a_certificate_is_judged_as_other_machines_will(tmp_path: Path) -> None:
    Certificates.make(tmp_path)

    def file(name: str) -> str:
        return str(tmp_path / name)

    pem, key, ca = file("good.pem"), file("good.key"), file("ca.pem")
    assert why_refused(pem, key, ca, "localhost") == ""
    assert "Hostname mismatch" in why_refused(pem, key, ca, "n.example")
    assert "unable to get local issuer" in why_refused(pem, key, "", "localhost")
    assert abs(ends_at(pem, key) - time.time() - 86400) < 3600
    old = file("expired.pem"), file("expired.key")
    assert ends_at(*old) == 0.0
    assert "has expired" in why_refused(*old, ca, "localhost")
    with pytest.raises(ConfigError, match="certificate_key is not its key"):
        ends_at(pem, file("ca.key"))
    with pytest.raises(ConfigError, match="No such file"):
        ends_at("/nowhere.pem", key)


def test_root_makes_a_key_that_the_agents_user_owns() -> None:
    if os.geteuid() != 0:
        not_lent("only root can become another user")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        state = Path(folder) / "state"
        state.mkdir()
        Path(folder).chmod(0o755)
        os.chown(state, 65534, 65534)
        words = ("--state", str(state))
        env = {**os.environ, "WA_AGENT_CONFIG": ""}
        for verb in ("make", "show-fingerprint"):
            argv = [sys.executable, "-m", "agent", "fleet", "key", verb, *words]
            done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        status = (state / "fleet.key").stat()
        assert (status.st_uid, status.st_mode & 0o777) == (65534, 0o600)
