"""kill -9 of the agent at each point of a message's way, and of the worker: the contact gets each
message once, in order; where an engine cannot repeat one, its outcome is said to be unknown."""

import asyncio

import pytest

from tests.world.sending import (
    ID,
    OUTBOX,
    PATH,
    TO,
    connected,
    goes_away,
    heard,
    left_in,
    say,
    state,
)

KEY = {"Idempotency-Key": "order-7"}
ORDER = {"to": TO, "text": "your order"}


async def killed_at(agent, eventually, point: str, order=ORDER) -> None:
    """It dies there on the way of its first message."""
    await agent.stop()
    await agent.start(f"{point}:kill")
    await eventually(lambda: agent.status(ID), "CONNECTED")
    await agent.dies(agent.ask("POST", f"{PATH}?wait=30", order, KEY))


@pytest.mark.parametrize("ends", ["cancelled", "expired"])
async def test_what_may_be_out_is_never_called_cancelled_or_expired(agent, eventually, ends):
    """Who believes that sends the message again, and the contact has it twice."""
    await connected(agent, eventually)
    order = {**ORDER, "expires_in": 1} if ends == "expired" else ORDER
    await killed_at(agent, eventually, "outbox_sent", order)
    await asyncio.sleep(2)  # the one that expires has expired
    await agent.kill_worker(ID)  # the next agent cannot send until it has another one
    await agent.start()
    (row,) = (await agent.do("GET", OUTBOX))["messages"]
    if ends == "cancelled":
        _, said = await agent.ask("DELETE", f"{OUTBOX}/{row['id']}")
        assert said.get("state") != "cancelled", said

    async def ended() -> bool:
        return await state(agent, row["id"]) not in ("accepted", "sending")

    await eventually(ended)
    assert await state(agent, row["id"]) == "unknown"
    await eventually(lambda: agent.status(ID), "CONNECTED")
    assert await heard(agent) == ["your order"]


async def test_a_worker_killed_while_it_sends_costs_and_doubles_no_message(agent, eventually):
    await connected(agent, eventually)
    texts = [f"number {n}" for n in range(40)]
    for number, text in enumerate(texts):
        await say(agent, text)
        if number in (10, 25):
            await agent.kill_worker(ID)
    await eventually(lambda: heard(agent), texts)
    rows = (await agent.do("GET", f"{OUTBOX}?limit=100"))["messages"]
    assert {row["state"] for row in rows} <= {"sent", "delivered", "read"}


async def test_a_deletion_that_a_kill_cut_short_takes_the_messages_along(agent, eventually, caplog):
    await connected(agent, eventually)
    await agent.stop()
    await agent.start("deletion_retired:kill")
    await goes_away(agent, eventually)
    await say(agent, "a most secret sentence")
    await agent.dies(agent.do("DELETE", f"/api/instance/{ID}"))
    assert b"secret sentence" in left_in(agent)
    await agent.start()
    await eventually(lambda: b"secret sentence" not in left_in(agent))
    assert "1 messages in outbox.db are not sent" in caplog.text
    assert not await agent.knows(ID)
