"""`wa-agent webhooks` for people and as JSON, and what its exit status says."""

import pytest

from agent.wings.webhooks.view import Trial
from tests.api.conftest import House
from tests.cli.conftest import Cli
from tests.wings.webhooks.fake_webhooks import FAILING


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
    (one,) = (await cli("webhooks", "list", "--json")).json()
    assert one["oldest"] == "2027-01-15T07:50:00.000Z"


async def test_without_webhooks_it_says_where_they_are_named(house: House, cli: Cli) -> None:
    assert "[[webhook]] in agent.toml" in (await cli("webhooks")).out
    said = await cli("webhooks", "test", "ops")
    assert (said.status, "cannot find the webhook ops" in said.err) == (3, True)


async def test_a_test_says_what_came_back_with_its_status(failing: House, cli: Cli) -> None:
    said = await cli("webhooks", "test", "ops")
    assert said.status == 0
    assert said.out == "taken: it answered 200, in 0.013 s\nit said: ok\n"
    failing.webhooks.answer = Trial(False, 401, "it answered 401", 0.1, "go \x1b[31maway")
    said = await cli("webhooks", "test", "ops")
    assert said.status == 1
    assert said.out.startswith("not taken: it answered 401")
    assert "\x1b" not in said.out
    failing.webhooks.answer = Trial(False, None, "its name cannot be looked up", 0.1, "")
    said = await cli("webhooks", "test", "ops", "--json")
    assert (said.status, said.json()["problem"]) == (1, "its name cannot be looked up")


async def test_a_try_now_is_asked_for(failing: House, cli: Cli) -> None:
    assert (await cli("webhooks", "retry", "ops")).out == "ops is tried now\n"
    assert failing.webhooks.asked == ["retry ops"]
