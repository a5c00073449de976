"""The outbox: what is accepted is sent once, over drops and deletions."""

import asyncio

from tests.clocks import stopped
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
    send_file,
    state,
)

DAY = 86_400.0


async def test_a_message_is_accepted_at_once_and_followed_to_the_phone(agent, eventually):
    await connected(agent, eventually, read_after=0.2)
    id = await say(agent, "on its way")
    await eventually(lambda: state(agent, id), "read")
    shown = await agent.do("GET", f"{OUTBOX}/{id}")
    assert shown["message_id"].startswith("3EB0")
    assert await heard(agent) == ["on its way"]
    by_whatsapp = await agent.do("GET", f"{OUTBOX}/{shown['message_id']}")
    assert by_whatsapp["id"] == id
    assert (await agent.do("GET", OUTBOX))["messages"] == [by_whatsapp]
    status, sent = await agent.ask("POST", f"{PATH}?wait=30", {"to": TO, "text": "now"})
    assert (status, sent["id"][:4]) == (200, "3EB0")


async def test_a_newcomer_sends_every_kind_of_message_through_the_sandbox(agent, eventually):
    await agent.create("a", scan_after=0)
    await eventually(lambda: agent.status("a"), "CONNECTED")
    for more in (
        {"text": "hello"},
        {"type": "media", "content": "aGk=", "mimetype": "text/plain"},
        {"type": "location", "latitude": 52.5, "longitude": 13.4},
        {"type": "contact", "name": "Ann", "phone": "5511777777777"},
        {"type": "reaction", "message_id": "3EB0", "emoji": "+"},
    ):
        said = await agent.do(
            "POST", "/api/instance/a/messages?wait=30", {"to": "5511777777777", **more}
        )
        assert said["id"]


async def test_a_repeat_names_the_message_as_the_first_answer_did(agent, eventually):
    await connected(agent, eventually)
    key, body = {"Idempotency-Key": "order-7"}, {"to": TO, "text": "once"}
    status, first = await agent.ask("POST", PATH, body, key)
    assert status == 202
    await eventually(lambda: heard(agent), ["once"])
    await eventually(lambda: state(agent, first["id"]), "delivered")
    status, again = await agent.ask("POST", PATH, body, key)
    assert (status, again["id"], again["state"]) == (200, first["id"], "delivered")
    status, waited = await agent.ask("POST", f"{PATH}?wait=5", body, key)
    assert (status, waited["id"]) == (200, again["message_id"])
    assert waited["id"].startswith("3EB0")
    assert await heard(agent) == ["once"]


async def test_a_session_that_is_away_holds_its_messages_and_says_why(agent, eventually):
    await connected(agent, eventually)
    await goes_away(agent, eventually)
    texts = [f"number {n}" for n in range(5)]
    ids = [await say(agent, text) for text in texts]

    async def waits() -> bool:
        told = (await agent.do("GET", f"/api/instance/{ID}"))["outbox"]
        return told.get("waiting") == 5 and told["sentence"].startswith("the session is ")

    async def held() -> tuple[str, bool]:
        shown = await agent.do("GET", f"{OUTBOX}/{ids[0]}")
        return shown["state"], bool(shown["sentence"])

    await eventually(waits)
    await eventually(held, ("accepted", True))
    # With a client that waits, the session's own refusal is the answer, and nothing is kept.
    status, refused = await agent.ask(
        "POST", f"{PATH}?wait=30", {"to": "5511888888888", "text": "now or never"}
    )
    assert (status, refused["error"]) == (409, "not_connected")
    await agent.clear(ID)
    await eventually(lambda: heard(agent), texts)
    assert (await agent.do("GET", f"/api/instance/{ID}"))["outbox"] == {}


async def test_a_cancelled_and_an_expired_message_are_never_sent(agent, eventually):
    await connected(agent, eventually)
    await goes_away(agent, eventually)
    kept, cancelled = await say(agent, "kept"), await say(agent, "cancelled")
    expired = await say(agent, "expired", expires_in=1)
    assert (await agent.do("DELETE", f"{OUTBOX}/{cancelled}"))["state"] == "cancelled"
    await eventually(lambda: state(agent, expired), "expired")
    for gone in (cancelled, expired):
        status, refused = await agent.ask("DELETE", f"{OUTBOX}/{gone}")
        assert (status, refused["error"]) == (409, "message_ended")
    status, missing = await agent.ask("DELETE", f"{OUTBOX}/out_nobody")
    assert (status, missing["error"]) == (404, "message_unknown")
    keyed = {"Idempotency-Key": "order-7"}
    order = {"to": TO, "text": "taken back"}
    _, taken = await agent.ask("POST", PATH, order, keyed)
    await agent.do("DELETE", f"{OUTBOX}/{taken['id']}")
    status, refused = await agent.ask("POST", PATH, order, keyed)
    assert (status, refused["error"]) == (409, "cancelled"), "a client's repeat undoes no cancel"
    await agent.clear(ID)
    await eventually(lambda: state(agent, kept), "read")
    await say(agent, "the last")
    await eventually(lambda: heard(agent), ["kept", "the last"])


async def test_a_deleted_instance_takes_its_messages_along(agent, eventually):
    await connected(agent, eventually)
    await goes_away(agent, eventually)
    await say(agent, "a most secret sentence")
    assert (await send_file(agent, bytes(1 << 20)))[0] == 202
    waiting = asyncio.create_task(
        agent.ask("POST", f"{PATH}?wait=60", {"to": TO, "text": "in the same chat"})
    )

    async def waits() -> bool:
        return (await agent.do("GET", f"/api/instance/{ID}"))["outbox"]["waiting"] == 3

    await eventually(waits)
    await agent.do("DELETE", f"/api/instance/{ID}")
    assert (await waiting)[0] == 404
    await eventually(lambda: not list((agent.state / "outbox").iterdir()))
    await eventually(lambda: b"secret sentence" not in left_in(agent))
    await connected(agent, eventually)
    assert (await agent.do("GET", OUTBOX))["messages"] == []
    await say(agent, "of the next one")
    await eventually(lambda: heard(agent), ["of the next one"])


async def test_acknowledgements_after_a_restart_of_the_agent_still_count(agent, eventually):
    await connected(agent, eventually, read_after=8)
    id = await say(agent, "read it later")
    await eventually(lambda: state(agent, id), "delivered")
    await agent.kill()
    await agent.start()
    await eventually(lambda: state(agent, id), "read")


async def test_a_temporary_ban_holds_the_messages_and_why_says_so(agent, eventually):
    await connected(agent, eventually)
    await agent.fault(ID, "temp-ban", 3600)

    async def banned() -> str:
        await say(agent, "later")
        return (await agent.do("GET", f"/api/instance/{ID}"))["outbox"].get("reason", "")

    await eventually(banned, "temporary_ban")
    told = (await agent.do("GET", f"/api/instance/{ID}"))["outbox"]
    assert "WhatsApp banned the account for a time" in told["sentence"]


async def test_a_clock_set_forwards_ends_no_message_and_one_set_back_keeps_none(agent, eventually):
    await connected(agent, eventually)
    await goes_away(agent, eventually)
    await agent.fault(ID, "drop", 8 * DAY)
    stays = await say(agent, "an order", expires_in=3600)
    for days in (4, -4):
        stopped().wall += days * DAY
        ends = await say(agent, "a code that is good for seconds", expires_in=3)
        await eventually(lambda id=ends: state(agent, id), "expired")
        assert await state(agent, stays) == "accepted"
    await agent.clear(ID)
    await eventually(lambda: heard(agent), ["an order"])
