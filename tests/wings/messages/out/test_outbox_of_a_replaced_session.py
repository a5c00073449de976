"""What waits to be sent while its session is replaced by an archive of itself, as `import
--replace` does: it goes out once, and keys stay known."""

import asyncio
import signal

import pytest

from tests.daemon.test_vault import cli
from tests.wings.messages.out.sending import ID, OUTBOX, PATH, TO, connected, heard, say, state

KEY = {"Idempotency-Key": "order-7"}
ORDER = {"to": TO, "text": "your order"}


async def waits_in(agent, eventually, file) -> list[str]:
    """Two messages, accepted while the session is stopped; their ids."""
    await connected(agent, eventually)
    status, said = await cli(agent, "export", ID, file)
    assert status == 0, said
    await agent.do("POST", f"/api/instance/{ID}/stop")
    await eventually(lambda: agent.pid(ID), 0)
    status, answer = await agent.ask("POST", PATH, ORDER, KEY)
    assert status == 202, answer
    return [answer["id"], await say(agent, "and more")]


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


async def test_what_waits_survives_an_import_that_replaces_its_session(agent, eventually, tmp_path):
    file = tmp_path / "a.tar.gz"
    ids = await waits_in(agent, eventually, file)
    made = (await agent.show(ID))["created"]
    status, said = await cli(agent, "import", file, "--replace")
    assert status == 0, said
    await stays_stopped(agent, ids)
    await agent.kill()
    await agent.start()
    await stays_stopped(agent, ids)
    assert (await agent.show(ID))["created"] == made
    await goes_out(agent, eventually, ids)


@pytest.mark.parametrize("point", ["retire_moved", "staging_way_free"])
async def test_what_waits_survives_an_agent_that_is_killed_in_such_an_import(
    agent, eventually, tmp_path, point
):
    file = tmp_path / "a.tar.gz"
    ids = await waits_in(agent, eventually, file)
    await agent.stop()
    await agent.start({"WA_FAILPOINT": f"{point}:kill"})
    asked = asyncio.ensure_future(cli(agent, "import", file, "--replace"))
    async with asyncio.timeout(60):
        assert await agent.process.wait() == -signal.SIGKILL
    await agent.start()  # the command goes on waiting for it
    await asked
    await stays_stopped(agent, ids)
    await goes_out(agent, eventually, ids)


async def test_a_deletion_says_how_many_messages_went_with_it(agent, eventually, tmp_path):
    await waits_in(agent, eventually, tmp_path / "a.tar.gz")
    status, said = await cli(agent, "delete", ID)
    assert (status, "2 messages that wait to be sent went with it" in said) == (0, True), said

    async def told() -> list[tuple[str, int]]:
        page = await agent.do("GET", "/api/events?kind=messages_dropped")
        return [(event["instance"], event["detail"]["count"]) for event in page["events"]]

    await eventually(told, [(ID, 2)])


async def test_so_does_the_start_after_a_kill_in_that_deletion(agent, eventually, tmp_path):
    await waits_in(agent, eventually, tmp_path / "a.tar.gz")
    await agent.stop()
    await agent.start({"WA_FAILPOINT": "deletion_retired:kill"})
    asked = asyncio.ensure_future(cli(agent, "delete", ID))
    async with asyncio.timeout(60):
        assert await agent.process.wait() == -signal.SIGKILL
    await agent.start()
    await asked
    await eventually(lambda: "2 accepted messages are not sent" in agent.log.read_text())
