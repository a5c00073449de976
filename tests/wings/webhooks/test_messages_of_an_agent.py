"""Messages of a real agent: from a contact to a webhook and to who polls, past kills of agent and
worker."""

import asyncio
import os
from collections import Counter

import pytest

from tests.wings.webhooks.receiver import Receiver

SESSIONS = ("shop-0", "shop-1", "shop-2")
CONTACT = "5511999990000"
PATH = "/api/instance/{id}/messages"


@pytest.fixture
async def target():
    async with Receiver().open() as one:
        yield one


def declared(target: Receiver, kinds: str = '"message"', more: str = "") -> str:
    return (
        f'\n[[webhook]]\nname = "bot"\nurl = "{target.url}"\nprivate = true\n'
        f"kinds = [{kinds}]\n{more}\n"
    )


async def say(agent, id: str, text: str) -> None:
    body = {"contact": CONTACT, "text": text}
    await agent.do("POST", f"/api/instance/{id}/sandbox/say", body)


def texts(target: Receiver, id: str) -> list[str]:
    return [
        one.body["text"]
        for one in target.taken
        if one.body["instance"] == id and one.body["kind"] == "message"
    ]


async def test_killed_at_any_moment_the_agent_loses_no_message_of_any_session(
    make_agent, target, eventually
):
    agent = make_agent(declared(target))
    await agent.start()
    for id in SESSIONS:
        await agent.create(id)
    for id in SESSIONS:
        await eventually(lambda id=id: agent.status(id), "CONNECTED")
    for step in range(6):
        for id in SESSIONS:
            for part in range(3):
                await say(agent, id, f"secret {step}.{part}")
        # Sometimes in the middle of a delivery, sometimes after all of them, sometimes before.
        if step % 3 == 1:
            seen = len(target.asked)
            await eventually(lambda seen=seen: len(target.asked) > seen)
        elif step % 3 == 2:
            await eventually(lambda step=step: f"secret {step}.2" in texts(target, SESSIONS[0]))
        if step % 2:
            pid = await agent.running_pid(SESSIONS[1])
            os.kill(pid, 9)
            await agent.kill()
        else:
            await agent.kill()
        await agent.start()
        for id in SESSIONS:
            await eventually(lambda id=id: agent.status(id), "CONNECTED", within=60)
    wanted = [f"secret {step}.{part}" for step in range(6) for part in range(3)]
    for id in SESSIONS:
        await eventually(lambda id=id: len(set(texts(target, id))), len(wanted), within=60)
        assert list(dict.fromkeys(texts(target, id))) == wanted
        # An agent that is killed within half a second has not noted how far it was: once for each.
        assert max(Counter(texts(target, id)).values()) <= 7
    deliveries = {one.headers["X-WA-Delivery"] for one in target.taken}
    assert len(deliveries) == len(wanted) * len(SESSIONS)
    log = agent.log.read_text()
    assert "secret " not in log
    assert CONTACT not in log
    found = await agent.do("GET", "/api/webhooks")
    await eventually(lambda: _waiting(agent), 0)
    assert found["webhooks"][0]["dead"] == 0


async def _waiting(agent) -> int:
    (found,) = (await agent.do("GET", "/api/webhooks"))["webhooks"]
    return found["messages"]


async def test_a_poll_goes_on_past_kills_of_the_worker_and_a_restart_of_the_agent(
    make_agent, eventually
):
    agent = make_agent()
    await agent.start()
    await agent.create("shop")
    await eventually(lambda: agent.status("shop"), "CONNECTED")
    path = PATH.format(id="shop")
    await say(agent, "shop", "before")
    page = await eventually(lambda: _page(agent, f"{path}?wait=30"))
    assert [one["text"] for one in page["records"]] == ["before"]
    polling = asyncio.create_task(agent.do("GET", f"{path}?after={page['next']}&wait=60"))
    before = await agent.running_pid("shop")
    os.kill(before, 9)
    await eventually(lambda: agent.is_back("shop", before), within=60)
    await say(agent, "shop", "after its kill")
    page = await polling
    assert [one["text"] for one in page["records"]] == ["after its kill"]
    polling = asyncio.create_task(agent.ask("GET", f"{path}?after={page['next']}&wait=60"))
    await asyncio.sleep(0)
    await agent.stop()
    status, said = await polling
    assert (status, said["error"]) == (503, "stopping")
    await agent.start()
    await eventually(lambda: agent.status("shop"), "CONNECTED", within=60)
    await say(agent, "shop", "after its stop")
    page = await agent.do("GET", f"{path}?after={page['next']}&wait=30")
    assert [one["text"] for one in page["records"]] == ["after its stop"]
    page = await agent.do("GET", path)
    said = [one["text"] for one in page["records"]]
    assert said == ["before", "after its kill", "after its stop"]
    await eventually(lambda: _counts(agent, 'wa_messages_lost_total{session="shop"} 0'))


async def _counts(agent, line: str) -> bool:
    return f"\n{line}\n" in await agent.do("GET", "/metrics")


async def _page(agent, path: str) -> dict | None:
    status, found = await agent.ask("GET", path)
    return found if status == 200 and found["records"] else None


async def test_a_message_is_no_event_and_goes_to_no_webhook_of_events(
    make_agent, target, eventually
):
    agent = make_agent(declared(target, '"*"'))
    await agent.start()
    await agent.create("shop")
    await eventually(lambda: agent.status("shop"), "CONNECTED")
    await say(agent, "shop", "a secret")
    assert await eventually(lambda: _page(agent, PATH.format(id="shop")))
    await agent.do("POST", "/api/instance/shop/stop")
    await eventually(
        lambda: any("stop" in one.body.get("sentence", "") for one in target.taken), within=60
    )
    assert not [one for one in target.taken if "a secret" in one.raw.decode()]
    assert not [one for one in target.taken if one.body["kind"].startswith("message")]
