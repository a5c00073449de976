"""`wa-agent webhooks` and its routes for people and as JSON, and what doctor says of webhooks."""

import os
from pathlib import Path

import aiohttp
import pytest

from agent.cli.client import Client
from tests.api.conftest import House
from tests.cli.conftest import Cli
from tests.webhooks.fake_webhooks import FAILING, TAKEN

SECRET = "Geheim-of-sixteen-or-more"


@pytest.fixture
def failing(house: House) -> House:
    house.webhooks.known["ops"] = FAILING
    return house


async def test_webhooks_are_listed(failing: House, cli: Cli) -> None:
    said = await cli("webhooks")
    assert said.status == 0
    head, row = said.out.splitlines()
    assert head.split()[:5] == ["NAME", "URL", "STATE", "CIRCUIT", "WAITING"]
    assert row.split()[:5] == ["ops", "https://ops.example/in", "failing", "open", "7"]
    assert row.split()[-4:] == ["1", "it", "answered", "503"]
    assert (await cli("webhooks", "--json")).json() == [FAILING]


async def test_a_test_says_what_came_back_with_its_status(failing: House, cli: Cli) -> None:
    said = await cli("webhooks", "test", "ops")
    assert said.status == 0
    assert said.out == "taken: it answered 200, in 0.013 s\nit said: ok\n"
    no = {**TAKEN, "delivered": False, "status": 401, "problem": "it answered 401"}
    failing.webhooks.answer = no | {"said": "go \x1b[31maway"}
    said = await cli("webhooks", "test", "ops")
    assert (said.status, "\x1b" in said.out) == (1, False)
    assert said.out.startswith("not taken: it answered 401")
    failing.webhooks.answer = no | {"status": None, "problem": "its name cannot be looked up"}
    assert "its name cannot be looked up" in (await cli("webhooks", "test", "ops")).out


async def test_a_try_now_is_asked_for(failing: House, cli: Cli) -> None:
    assert (await cli("webhooks", "retry", "ops")).out == "ops is tried now\n"
    assert failing.webhooks.asked == ["retry ops"]


@pytest.mark.parametrize("path", ["other/test", "other/retry", "..%2f/test"])
async def test_unknown_names_are_not_found(
    failing: House, local: aiohttp.ClientSession, path: str
) -> None:
    assert (await local.post(f"/api/webhooks/{path}")).status == 404
    assert failing.webhooks.asked == []


@pytest.fixture
def doctor(cli: Cli, house: House, tmp_path: Path):
    async def examine(more: str = "") -> list[tuple[str, str]]:
        file = tmp_path / "agent.toml"
        url = f"url = 'https://127.0.0.1:1/in?token={SECRET}'\n"
        file.write_text(f"[[webhook]]\nname = 'ops'\n{url}{more}\n")
        state = tmp_path / "state"
        state.mkdir(mode=0o700, exist_ok=True)
        where = ("--state", str(state), "--socket", str(house.socket_path), "--config", str(file))
        said = await cli("doctor", "--json", *where)
        assert SECRET not in said.out + said.err
        found = [it for it in said.json()["findings"] if it["check"] == "webhook ops"]
        return [(it["level"], it["sentence"]) for it in found]

    return examine


async def test_the_doctor_says_what_keeps_a_webhook_from_sending(
    doctor, house, tmp_path, monkeypatch
):
    house.webhooks.known["ops"] = FAILING
    asked, get = [], Client.get
    monkeypatch.setattr(Client, "get", lambda it, path: asked.append(path) or get(it, path))
    two = "[[webhook]]\nname = 'b'\nurl = 'https://b.example'"
    assert await doctor(two) == [("wrong", "it answered 503; 7 events wait")]
    assert asked.count("/api/webhooks") == 1
    house.webhooks.known["ops"] = {**FAILING, "state": "idle"}
    (level, sentence), ok = await doctor("kinds = ['status', 'statsu']")
    assert (level, ok) == ("wrong", ("ok", "its target takes events"))
    assert sentence.startswith("cannot use 'statsu' in kinds of webhook ops: no event is of it")
    short = tmp_path / "short"
    short.write_text("short")
    os.mkfifo(pipe := tmp_path / "pipe")
    for key, path, cause in (
        ("secret_file", short, "shorter than 16"),
        ("secret_file", pipe, "it is no plain file"),
        ("ca_file", pipe, "it is no plain file"),
        ("ca_file", short, "it holds no certificate"),
    ):
        (level, sentence), *_ = await doctor(f"{key} = '{path}'")
        assert (level, cause in sentence) == ("wrong", True)
