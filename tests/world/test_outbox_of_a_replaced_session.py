"""Messages wait to be sent while an archive of their session replaces it, as `import --replace`
does: they go out once, and keys stay known."""

import asyncio

import pytest

from tests.world.sending import ID, OUTBOX, PATH, TO, connected, heard, say, state
from tests.world.test_vault import send

KEY = {"Idempotency-Key": "order-7"}
ORDER = {"to": TO, "text": "your order"}
REPLACE = "/api/import?replace=true"


async def waits_in(agent, eventually) -> tuple[bytes, list[str]]:
    """Return the session's archive, and the ids of two messages that were accepted while it was
    stopped."""
    await connected(agent, eventually)
    status, archive = await send(agent, f"/api/instance/{ID}/export")
    assert status == 200, archive
    await agent.do("POST", f"/api/instance/{ID}/stop")
    await eventually(lambda: not agent.machine.worker(ID).status.runs)
    status, answer = await agent.ask("POST", PATH, ORDER, KEY)
    assert status == 202, answer
    return archive, [answer["id"], await say(agent, "and more")]


async def stays_stopped(agent, ids: list[str]) -> None:
    """The operator's stop is in the record from the start of the agent on: no pass starts it."""
    shown = await agent.show(ID)
    assert (shown["override"], shown["should_run"]) == ("stopped", False)
    assert [await state(agent, id) for id in ids] == ["accepted", "accepted"]


async def goes_out(agent, eventually, ids: list[str]) -> None:
    await agent.do("POST", f"/api/instance/{ID}/start")
    await eventually(lambda: agent.status(ID), "CONNECTED")
    await eventually(lambda: heard(agent), ["your order", "and more"])
    status, answer = await agent.ask("POST", PATH, ORDER, KEY)
    assert (status, answer["id"]) == (200, ids[0]), "a repeat is the same message"
    assert {row["id"] for row in (await agent.do("GET", OUTBOX))["messages"]} == {*ids}
    assert await heard(agent) == ["your order", "and more"]


async def test_what_waits_survives_an_import_that_replaces_its_session(agent, eventually):
    archive, ids = await waits_in(agent, eventually)
    made = (await agent.show(ID))["created"]
    status, said = await send(agent, REPLACE, archive)
    assert status < 300, said
    await stays_stopped(agent, ids)
    await agent.kill()
    await agent.start()
    await stays_stopped(agent, ids)
    assert (await agent.show(ID))["created"] == made
    await goes_out(agent, eventually, ids)


@pytest.mark.parametrize("point", ["retire_moved", "staging_way_free"])
async def test_what_waits_survives_an_agent_that_is_killed_in_such_an_import(
    agent, eventually, point
):
    archive, ids = await waits_in(agent, eventually)
    await agent.stop()
    await agent.start(f"{point}:kill")
    await agent.dies(send(agent, REPLACE, archive))
    await agent.start()
    await stays_stopped(agent, ids)
    await goes_out(agent, eventually, ids)


async def test_a_deletion_says_how_many_messages_went_with_it(agent, eventually):
    await waits_in(agent, eventually)
    # One more arrives while it is deleted.
    deleted, _ = await asyncio.gather(
        agent.do("DELETE", f"/api/instance/{ID}"), say(agent, "at the last moment")
    )
    assert deleted["messages_dropped"] == 3

    async def told() -> list[tuple[str, int]]:
        page = await agent.do("GET", "/api/events?kind=outbox_dropped")
        return [(event["instance"], event["detail"]["count"]) for event in page["events"]]

    await eventually(told, [(ID, 3)])


async def test_a_key_that_went_with_a_session_is_another_message_with_another_text(
    agent, eventually
):
    await connected(agent, eventually)
    await agent.ask("POST", f"{PATH}?wait=30", ORDER, KEY)
    await agent.do("DELETE", f"/api/instance/{ID}")
    (name,) = [each["name"] for each in (await agent.do("GET", "/api/trash"))["trash"]]
    await agent.do("POST", f"/api/trash/{name}/restore", {})
    await eventually(lambda: agent.status(ID), "CONNECTED")
    await agent.ask("POST", f"{PATH}?wait=30", ORDER | {"text": "another"}, KEY)
    await eventually(lambda: heard(agent), ["your order", "another"])
