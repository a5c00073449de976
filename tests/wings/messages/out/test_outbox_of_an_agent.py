"""The outbox of a real agent: what is accepted is sent once, over drops and deletions."""

from tests.wings.messages.out.sending import (
    ID,
    OUTBOX,
    PATH,
    TO,
    connected,
    goes_away,
    heard,
    say,
    state,
)


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


async def test_what_said_a_message_is_wiped_when_it_was_sent(agent, eventually):
    await connected(agent, eventually)
    await say(agent, "a most secret sentence")
    await eventually(lambda: heard(agent), ["a most secret sentence"])

    def left() -> bytes:
        files = [path for path in agent.state.glob("outbox.db*") if path.is_file()]
        return b"".join(path.read_bytes() for path in files)

    await eventually(lambda: b"secret sentence" not in left(), within=30)
    assert (agent.state / "outbox.db").stat().st_mode & 0o777 == 0o600
    assert "secret sentence" not in agent.log.read_text()


async def test_a_session_that_is_away_holds_its_messages_and_says_why(agent, eventually):
    await connected(agent, eventually)
    await goes_away(agent, eventually)
    texts = [f"number {n}" for n in range(5)]
    ids = [await say(agent, text) for text in texts]
    waits = (await agent.do("GET", f"/api/instance/{ID}"))["outbox"]
    assert waits["waiting"] == 5
    assert waits["sentence"].startswith("the session is ")
    shown = await agent.do("GET", f"{OUTBOX}/{ids[0]}")
    assert shown["state"] == "accepted"
    assert shown["sentence"]
    # With a client that waits, the session's own refusal is the answer, and nothing is kept.
    status, refused = await agent.ask(
        "POST", f"{PATH}?wait=30", {"to": "5511888888888", "text": "now or never"}
    )
    assert (status, refused["error"]) == (409, "not_connected")
    await agent.clear(ID)
    await eventually(lambda: heard(agent), texts)
    assert (await agent.do("GET", f"/api/instance/{ID}"))["outbox"] == {}
