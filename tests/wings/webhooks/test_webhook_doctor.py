"""What the doctor says of webhooks."""

from dataclasses import replace
from pathlib import Path

import pytest

from agent.wings.webhooks.view import WebhookView
from tests.api.conftest import House
from tests.cli.conftest import Cli

SECRET = "Geheim-of-sixteen-or-more"


@pytest.fixture
def doctor(cli: Cli, house: House, tmp_path: Path):
    async def examine(more: str, url: str = "http://127.0.0.1:1/in", *argv: str):
        file = tmp_path / "agent.toml"
        file.write_text(f"[[webhook]]\nname = 'ops'\nurl = '{url}?token={SECRET}'\n{more}\n")
        state = tmp_path / "state"
        state.mkdir(mode=0o700, exist_ok=True)
        where = ("--state", str(state), "--socket", str(house.socket_path), "--config", str(file))
        said = await cli("doctor", "--json", *where, *argv)
        assert SECRET not in said.out + said.err
        found = said.json()["findings"]
        return [
            (one["level"], one["sentence"])
            for one in found
            if one["check"] in ("webhook ops", "config")
        ]

    return examine


def bad(found):
    return [(level, sentence) for level, sentence in found if level != "ok"]


async def test_a_webhook_that_takes_events_is_good(doctor, house, tmp_path):
    house.webhooks.known["ops"] = WebhookView("ops", "http://127.0.0.1:1/in")
    file = tmp_path / "secret"
    file.write_text(SECRET)
    file.chmod(0o600)
    found = await doctor(f"private = true\nsecret_file = '{file}'")
    assert bad(found) == []
    assert len(found) == 2
    house.webhooks.known["ops"] = replace(house.webhooks.known["ops"], dead=2)
    assert bad(await doctor("private = true")) == [
        ("note", "its target refused 2 events, which the agent gave up")
    ]


async def test_obstacles_to_sending_a_webhook_are_named(doctor, house, tmp_path):
    house.webhooks.known["ops"] = WebhookView("ops", "x")
    ((level, sentence),) = bad(await doctor("private = true\nsecret_file = '/nowhere/x'"))
    assert (level, "cannot read /nowhere/x" in sentence) == ("wrong", True)
    ((level, sentence),) = bad(await doctor("", "http://localhost:1/in"))
    assert (level, "it is loopback, and private = true is not set" in sentence) == ("wrong", True)
    # Longer than a name may be: no resolver is asked.
    ((level, sentence),) = bad(await doctor("", f"http://{'x' * 70}.example/in"))
    assert (level, "cannot resolve its name xxx" in sentence) == ("wrong", True)
    short = tmp_path / "short"
    short.write_text("short")
    short.chmod(0o600)
    ((level, sentence),) = bad(await doctor(f"private = true\nsecret_file = '{short}'"))
    assert "shorter than 16" in sentence
    assert bad(await doctor("private = true", "https://127.0.0.1:1/in")) == []
    ((_, sentence),) = bad(await doctor("private=true\nca_file='/no/ca'", "https://127.0.0.1:1/in"))
    assert "cannot read /no/ca" in sentence
