"""What the doctor says of a fleet: nothing without one, and each thing that is wrong in one."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.cli.client import Client
from agent.cli.doctor.check import Installation, run_checks
from agent.cli.doctor.fleet import checks
from agent.config import BackendDeclaration, Config
from agent.fleet.key import FleetKey
from agent.fleet.postgres.schema import allow, prepare
from tests.cli.fleet.conftest import FleetApi, machine
from tests.listener import Listener
from tests.standin.evolution.certificates import Certificates
from tests.standin.postgres import Postgres, temporary_postgres

Look = Callable[..., Awaitable[dict[str, list[tuple[str, str]]]]]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with temporary_postgres() as server:
        server.sql("CREATE ROLE agent LOGIN; CREATE ROLE strong LOGIN CREATEDB")
        asyncio.run(prepare(server.url))
        asyncio.run(allow(server.url, "agent"))
        asyncio.run(allow(server.url, "strong"))
        yield server


async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.fixture
async def look(api: FleetApi, tmp_path: Path, server: Postgres) -> Any:
    Certificates.make(tmp_path)
    FleetKey.make(tmp_path / "fleet.key")
    listener = await Listener(hang_up).open()
    port = listener.port
    plain = Config()
    config = replace(
        plain,
        agent=replace(plain.agent, state_path=tmp_path),
        fleet=replace(
            plain.fleet,
            database=server.url.replace("owner@", "agent@"),
            listen=f"127.0.0.1:{port}",
            address=f"https://localhost:{port}",
            certificate=str(tmp_path / "good.pem"),
            certificate_key=str(tmp_path / "good.key"),
            ca=str(tmp_path / "ca.pem"),
            capacity=10,
        ),
    )
    api.answers["/api/instances"] = [
        {"instances": [{"id": "web-1", "memory_bytes": 1 << 20}], "next": None}
    ]
    api.answers["/metrics"] = ["wa_fleet_copy_age_seconds 0.5\n"]

    async def looking(
        backend: tuple[BackendDeclaration, ...] = (), **changes: Any
    ) -> dict[str, list[tuple[str, str]]]:
        changed = replace(config, backend=backend, fleet=replace(config.fleet, **changes))
        client = Client(sockets=(tmp_path / "api.sock",))
        here = Installation(changed, client, None, Counter())
        found = await asyncio.to_thread(lambda: list(run_checks(checks(here), here)))
        by_check: dict[str, list[tuple[str, str]]] = {}
        for finding in found:
            by_check.setdefault(finding.check, []).append((finding.level.value, finding.sentence))
            assert finding.level.value == "ok" or finding.advice
        return by_check

    yield looking
    await listener.close()


async def test_profiles_need_restic(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "fleet profiles" not in await look()
    for found, told in (
        ("/usr/bin/restic", ("ok", "restic is installed")),
        (None, ("wrong", "restic is not installed: no browser profile moves")),
    ):
        monkeypatch.setattr("shutil.which", lambda _name, found=found: found)
        assert (await look(profiles="s3:host/bucket"))["fleet profiles"] == [told]
    found = await look(profiles="s3:host/bucket", profiles_env_file="/nowhere/profiles.env")
    ((level, sentence),) = found["fleet profiles"]
    assert (level, "cannot read /nowhere/profiles.env" in sentence) == ("wrong", True)


async def test_without_a_fleet_it_says_nothing(look: Look) -> None:
    assert await look(database="") == {}


async def test_a_good_machine_of_a_fleet_is_good(look: Look) -> None:
    found = await look()
    assert {level for findings in found.values() for level, _ in findings} <= {"ok", "note"}
    assert list(found) == [
        *("fleet key", "fleet database", "fleet certificate", "fleet address"),
        *("fleet", "fleet capacity", "fleet copies"),
    ]
    assert found["fleet certificate"] == [("note", "it ends in 1 days")]


@pytest.mark.parametrize(
    ("changes", "check", "words"),
    [
        ({"key_file": "/nowhere/key"}, "fleet key", "it is missing"),
        ({"database": "postgresql://agent@127.0.0.1:1/x"}, "fleet database", "cannot reach"),
        ({"address": "https://n.example:1"}, "fleet certificate", "Hostname mismatch"),
        (
            {"address": "https://localhost:1"},
            "fleet address",
            "cannot reach https://localhost:1 from this machine",
        ),
    ],
)
async def test_faults_of_the_fleet_are_named(
    look: Look, changes: dict[str, Any], check: str, words: str
) -> None:
    ((level, sentence),) = (await look(**changes))[check]
    assert (level, words in sentence) == ("wrong", True), sentence


async def test_a_login_that_may_too_much_is_said(look: Look, server: Postgres) -> None:
    found = await look(database=server.url.replace("owner@", "strong@"))
    assert ("note", "the login strong may make databases") in found["fleet database"]


async def test_another_key_than_the_fleets_is_said(look: Look, server: Postgres) -> None:
    server.sql("UPDATE wa_agent.fleet SET key_fingerprint = 'abc'")
    try:
        found = await look()
    finally:
        server.sql("UPDATE wa_agent.fleet SET key_fingerprint = ''")
    assert ("wrong", "the fleet's machines have another key (abc)") in found["fleet key"]


async def test_machines_memory_and_copies_are_looked_at(look: Look, api: FleetApi) -> None:
    api.fleet["machines"] += [machine("c", alive=False), machine("d", reachable=False)]
    api.fleet["halted"] = "a change of owners was lost"
    api.fleet["waiting"] = [{"id": "web-2", "why": "no room", "machine": "c"}]
    api.answers["/metrics"] = ["wa_fleet_copy_age_seconds 95.5\n"]
    found = await look(capacity=10**9)
    said = [sentence for findings in found.values() for _, sentence in findings]
    for words in (
        "machines that no longer renew their lease: c",
        "machines that are alive and do not answer this one: d",
        "no session changes its machine: a change of owners was lost",
        "1 sessions wait for a machine: web-2",
        "capacity is 1000000000, and the memory holds about",
        "no stored copy holds a change of 96 s ago",
    ):
        assert any(words in sentence for sentence in said), (words, said)


async def test_a_machine_that_gets_no_session_and_a_backend_of_two_machines_are_said(
    look: Look, api: FleetApi
) -> None:
    api.fleet["machines"][0]["capacity"] = 0
    entries = [{"id": id, "machine": id, "memory_bytes": None} for id in ("a", "b")]
    api.answers["/api/instances"] = [{"instances": entries, "next": None}]
    found = await look(backend=(BackendDeclaration("evo", "evolution"),))
    assert found["fleet capacity"] == [
        ("wrong", "its disk is nearly full: the fleet gives this machine no session")
    ]
    assert found["backend evo"] == [
        ("note", "a backend of this name has sessions on b too"),
    ]
    assert any("backend=evo" in path for _, path, _ in api.asked)


async def test_an_agent_that_is_away_is_one_finding(look: Look, tmp_path: Path) -> None:
    (tmp_path / "api.sock").unlink()
    found = await look()
    assert "cannot reach the agent" in found["fleet"][0][1]
