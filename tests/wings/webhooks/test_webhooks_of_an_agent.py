"""Webhooks of a real agent: killed, reloaded, with a target that goes and comes back."""

from pathlib import Path

import pytest

from tests.wings.webhooks.receiver import Receiver

SECRET = "Geheim-of-sixteen-or-more"


@pytest.fixture
async def target():
    async with Receiver().open() as one:
        yield one


def declared(target: Receiver, tmp_path: Path, more: str = "", name: str = "ops") -> str:
    file = tmp_path / "ops.secret"
    file.write_text(SECRET)
    file.chmod(0o600)
    return (
        f'\n[[webhook]]\nname = "{name}"\nurl = "{target.url}?token={SECRET}"\nprivate = true\n'
        f'secret_file = "{file}"\n{more}\n'
    )


async def journal(agent) -> list[dict]:
    found, after = [], 0
    while True:
        page = await agent.do("GET", f"/api/events?after={after}&limit=1000")
        found += page["events"]
        if not page["events"]:
            return found
        after = page["events"][-1]["cursor"]


async def state(agent, name: str = "ops") -> dict:
    (found,) = [one for one in (await agent.do("GET", "/api/webhooks"))["webhooks"]
                if one["name"] == name]  # fmt: skip
    return found


async def test_f61_killed_at_any_moment_the_agent_loses_no_event(
    make_agent, target, tmp_path, eventually
):
    agent = make_agent(declared(target, tmp_path))
    await agent.start()

    async def place():
        return (await state(agent))["cursor"]

    first = await eventually(place)  # 0 until it has looked where it begins
    for number in range(6):
        await agent.create(f"shop-{number}")
        # Sometimes in the middle of a delivery, sometimes right after it, sometimes before.
        if number % 2:
            seen = len(target.asked)
            await eventually(lambda seen=seen: len(target.asked) > seen)
        await agent.kill()
        await agent.start()
    for number in range(6):
        await eventually(lambda n=number: agent.status(f"shop-{n}"), "CONNECTED")

    async def all_there():
        wanted = [one["cursor"] for one in await journal(agent) if one["cursor"] > first
                  and one["detail"].get("webhook") != "ops"]  # fmt: skip
        return set(wanted) <= set(target.ids()) and len(wanted) > 50

    await eventually(all_there, within=30)
    once = list(dict.fromkeys(target.ids()))
    assert once == sorted(once), "what is repeated is repeated; what is new comes in order"
    shown = {one["cursor"]: one for one in await journal(agent)}
    for one in target.taken:
        event = shown[one.body["id"]]
        assert {k: one.body[k] for k in event if k != "cursor"} == {
            k: v for k, v in event.items() if k != "cursor"
        }
    assert SECRET not in agent.log.read_text()
