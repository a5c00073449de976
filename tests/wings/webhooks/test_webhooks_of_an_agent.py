"""Webhooks of a real agent: killed, reloaded, with a target that goes and comes back."""

import asyncio
import re
import signal
from pathlib import Path

import pytest

from tests.ports import free_port
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


async def metric(agent, line: str) -> float | None:
    text = await agent.do("GET", "/metrics")
    found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
    return None if found is None else float(found[1])


async def outbox(agent) -> tuple[float, bool]:
    """How many events wait, and whether it is told since when: of one moment."""
    text = await agent.do("GET", "/metrics")
    (length,) = re.findall(r'^wa_agent_outbox_length{kind="webhook"} (\S+)$', text, re.MULTILINE)
    return float(length), '\nwa_agent_outbox_oldest_timestamp_seconds{kind="webhook"} ' in text


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


async def test_f61_a_target_that_was_down_hears_all_that_happened_meanwhile(
    make_agent, tmp_path, eventually
):
    target, port = Receiver(), free_port()
    target.port = port
    agent = make_agent(declared(target, tmp_path))
    await agent.start()
    assert await metric(agent, 'wa_agent_webhook_deliveries_total{result="dead"}') == 0
    await agent.create("shop")
    await eventually(lambda: agent.status("shop"), "CONNECTED")

    async def failing():
        return (await state(agent))["state"] == "failing"

    await eventually(failing)

    async def waits():
        length, since_when = await outbox(agent)
        return length and since_when

    await eventually(waits)
    waiting = await state(agent)
    assert (waiting["state"], waiting["waiting"] > 0) == ("failing", True)
    assert "cannot be reached" in waiting["problem"]
    assert waiting["url"] == f"http://127.0.0.1:{port}/***", "path and query may be the key"
    async with target.open(port):
        await agent.do("POST", "/api/webhooks/ops/retry")
        await eventually(lambda: "created" in [one.body["kind"] for one in target.taken])
        await eventually(lambda: outbox(agent), (0.0, False))
        assert await metric(agent, 'wa_agent_webhook_deliveries_total{result="failed"}') > 0
        assert await metric(agent, 'wa_agent_webhook_deliveries_total{result="delivered"}') > 0
        kinds = [one["sentence"] for one in await journal(agent) if one["kind"] == "operator"]
        assert any("an operator asked for a try now" in one for one in kinds)
        assert await agent.stop() == 0
    assert SECRET not in agent.log.read_text()


async def test_a_reload_begins_a_webhook(make_agent, target, tmp_path, eventually):
    agent = make_agent()
    await agent.start()
    assert await agent.do("GET", "/api/webhooks") == {"webhooks": []}
    before = agent.config.read_text()
    agent.config.write_text(before + declared(target, tmp_path))
    agent.process.send_signal(signal.SIGHUP)

    async def begun():
        found = (await agent.do("GET", "/api/webhooks"))["webhooks"]
        return bool(found) and found[0]["cursor"] > 0

    await eventually(begun)
    answer = await agent.do("POST", "/api/webhooks/ops/test")
    assert (answer["delivered"], answer["status"]) == (True, 200)
    assert "v1=" in target.taken[-1].headers["X-WA-Signature"]
    await agent.create("shop")
    await eventually(lambda: "created" in [one.body["kind"] for one in target.taken])
    agent.config.write_text(before)
    agent.process.send_signal(signal.SIGHUP)

    async def over():
        return (await agent.do("GET", "/api/webhooks"))["webhooks"]

    await eventually(over, [])
    assert "takes effect at the agent's next start" not in agent.log.read_text()


async def test_a_target_that_never_answers_does_not_hold_up_the_agents_end(
    make_agent, target, tmp_path, eventually
):
    target.answering.clear()
    agent = make_agent(declared(target, tmp_path, "timeout = 60"))
    await agent.start()
    await agent.create("shop")
    await eventually(lambda: target.asked)
    async with asyncio.timeout(15):
        assert await agent.stop() == 0
