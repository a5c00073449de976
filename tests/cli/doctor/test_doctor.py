"""doctor finds what is wrong, says what to do and changes nothing."""

import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from agent.cli.client import Client, Installation
from agent.cli.doctor import agent, disk, fleet_store, unit_files
from agent.config.config import AgentSection, ApiSection, Config
from agent.fleet.settings import FleetSettings
from agent.store.database import Store
from tests.api.conftest import House
from tests.cli.conftest import Cli


@pytest.fixture
async def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    (folder / "sessions" / "sales").mkdir(parents=True)
    await (await Store.open(folder / "agent.db")).close()
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return folder


class Doctor:
    """Runs it on one state directory and one agent."""

    def __init__(self, cli: Cli, state: Path, socket: Path) -> None:
        self._run = cli
        self.state = state
        self._where = ("--state", str(state), "--socket", str(socket))

    async def __call__(self, *more: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
        said = await self._run("doctor", "--json", *self._where, *more)
        found: dict[str, list[dict[str, str]]] = {}
        for one in said.json()["findings"]:
            found.setdefault(one["check"], []).append(one)
        return said.status, found

    async def wrong(self, *more: str) -> dict[str, str]:
        """Check and sentence of all that is wrong."""
        _, found = await self(*more)
        every = [one for several in found.values() for one in several]
        assert all(one["advice"] for one in every if one["level"] != "ok")
        return {one["check"]: one["sentence"] for one in every if one["level"] == "wrong"}


@pytest.fixture
def doctor(cli: Cli, state: Path, house: House) -> Doctor:
    return Doctor(cli, state, house.socket_path)


async def test_a_good_installation_is_called_good(doctor: Doctor) -> None:
    status, found = await doctor()
    assert (status, await doctor.wrong()) == (0, {})
    assert found["database"][0]["sentence"] == "whole"
    assert found["agent"][0]["level"] == "ok"


async def test_s4_a_state_folder_that_is_away_is_named(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, empty = tmp_path / "state-used", tmp_path / "mount-point"
    empty.mkdir(0o700)
    monkeypatch.setenv("WA_STATE_USED", str(used))
    doctor = Doctor(cli, empty, tmp_path / "nobody.sock")
    assert "state" not in await doctor.wrong()
    used.touch()
    assert f"{used} says that an agent used a state here before" in (await doctor.wrong())["state"]
    (empty / "agent.db").touch(0o600)
    assert "state" not in await doctor.wrong()


async def test_files_open_to_everybody_are_named(doctor: Doctor) -> None:
    (doctor.state / "sessions/sales").chmod(0o755)
    (doctor.state / "agent.db").chmod(0o644)
    (doctor.state / "api.sock").touch(0o666)
    (doctor.state / "api.sock").chmod(0o666)
    found = (await doctor.wrong())["state"]
    assert all(it in found for it in ("sales (0755)", "agent.db (0644)", "api.sock (0666)"))
    assert (await doctor())[0] == 1


async def test_no_agent_is_wrong_and_hides_nothing(cli: Cli, state: Path, tmp_path: Path) -> None:
    found = await Doctor(cli, state, tmp_path / "nobody.sock").wrong()
    assert set(found) == {"agent"}
    assert "nobody.sock" in found["agent"]


def test_an_address_that_others_reach_is_named() -> None:
    here = Installation(Config(api=ApiSection(listen="0.0.0.0:1")), Client("http://[::1]:1"), None)
    assert [it.level for it in agent(here)] == ["note", "wrong"]


def test_a_socket_of_others_asks_for_the_right_and_no_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    denied = PermissionError(13, "Permission denied")
    monkeypatch.setattr("agent.cli.client.short_path", Mock(side_effect=denied))
    (found,) = agent(Installation(Config(), Client(sockets=(Path("/s"),)), None))
    assert (found.level, found.advice) == ("note", "sudo wa-agent doctor")
    assert found.sentence.endswith("denied); it is for root and the group wa-agent")


# --- the machine ------------------------------------------------------------------------------


def test_missing_and_masked_units_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(
        "#!/bin/sh\nprintf 'Id=wa-agent.service\\nLoadState=not-found\\n\\n"
        "Id=wa-agent.socket\\nLoadState=masked\\n'\n"
    )
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    here = Installation(Config(), Client(), None)
    assert [(one.level, one.sentence, one.advice) for one in unit_files(here)][:2] == [
        ("wrong", "wa-agent.service: not-found", ""),
        ("wrong", "wa-agent.socket: masked", "systemctl unmask wa-agent.socket"),
    ]


def test_a_fleet_not_asked_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet/machine.pem").touch()
    (own := tmp_path / "etcd").write_text(
        "ETCD_A=https://10.0.0.1:2379,/etc/wa-agent-etcd/ca.pem\n"
    )
    monkeypatch.setattr("agent.cli.doctor.ETCD", own)
    for store, words in ((), "no member of etcd"), (["10.9.9.9"], "own etcd"), (["10.0.0.1"], ""):
        fleet = FleetSettings(tuple(f"https://{it}:2379" for it in store))
        config = Config(AgentSection(state_path=tmp_path), rows={"fleet": (fleet,)})
        found = [it.sentence for it in fleet_store(Installation(config, Client(), None))]
        assert len(found) == bool(words) and all(words in it for it in found)


def test_a_full_disk_is_wrong(small_disk: Any) -> None:
    config = Config(agent=AgentSection(state_path=small_disk("size=16m")))
    assert [one.level for one in disk(Installation(config, Client(), None))] == ["wrong"]
