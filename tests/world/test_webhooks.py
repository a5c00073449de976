"""A webhook gets each event of the journal, in order, whatever is killed."""

import pytest

from tests.webhooks.receiver import Receiver

SECRET = "Geheim-of-sixteen-or-more"


@pytest.fixture
async def target():
    async with Receiver().open() as one:
        yield one


async def journal(agent):
    found, after = [], 0
    while True:
        page = await agent.do("GET", f"/api/events?after={after}&limit=1000")
        found += page["events"]
        if not page["events"]:
            return found
        after = page["events"][-1]["cursor"]


async def place(agent):
    (shown,) = (await agent.do("GET", "/api/webhooks"))["webhooks"]
    return shown["cursor"]


async def test_f61_killed_again_and_again_the_agent_loses_no_event(
    make_agent, target, tmp_path, eventually
):
    file = tmp_path / "ops.secret"
    file.write_text(SECRET)
    file.chmod(0o600)
    agent = make_agent(
        f'[[webhook]]\nname = "ops"\nurl = "{target.url}?token={SECRET}"\nprivate = true\n'
        f'secret_file = "{file}"\n'
    )
    await agent.start()
    first = await eventually(lambda: place(agent))  # 0 until it has looked where it begins
    for number in range(6):
        # Every other time while the target refuses one.
        target.status = (lambda body: 503) if number % 2 else (lambda body: 200)
        seen = len(target.asked)
        await agent.create(f"shop-{number}")
        await eventually(lambda seen=seen: len(target.asked) > seen)
        await agent.kill()
        target.status = lambda body: 200
        await agent.start()
    for number in range(6):
        await eventually(lambda n=number: agent.status(f"shop-{n}"), "CONNECTED")

    async def all_there():
        wanted = [
            one["cursor"]
            for one in await journal(agent)
            if one["cursor"] > first and one["detail"].get("webhook") != "ops"
        ]
        return set(wanted) <= set(target.ids()) and len(wanted) > 50

    await eventually(all_there)
    once = list(dict.fromkeys(target.ids()))
    assert once == sorted(once), "what is repeated is repeated; what is new comes in order"
    shown = {one["cursor"]: one for one in await journal(agent)}
    for one in target.taken:
        event = shown[one.body["id"]]
        assert {k: one.body[k] for k in event if k != "cursor"} == {
            k: v for k, v in event.items() if k != "cursor"
        }


async def test_what_a_worker_kept_just_before_its_end_is_delivered_without_it(
    make_agent, target, eventually
):
    agent = make_agent(
        f'[[webhook]]\nname = "ops"\nurl = "{target.url}"\nprivate = true\nkinds = ["message"]\n'
    )
    await agent.start()
    await agent.create("a", scan_after=0, messages_per_minute=0)
    await eventually(lambda: agent.status("a"), "CONNECTED")
    for _ in range(9):
        said = {"contact": "5511777777777", "text": "hi"}
        await agent.do("POST", "/api/instance/a/sandbox/say", said)
    await agent.do("POST", "/api/instance/a/disable", {})
    await eventually(lambda: len(target.taken), 9)
