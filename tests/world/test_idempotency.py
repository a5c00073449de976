"""A message with an Idempotency-Key goes out once, over a killed agent too."""


async def test_the_same_key_sends_once_over_a_killed_agent(agent, eventually):
    await agent.create("a", scan_after=0)
    await eventually(lambda: agent.status("a"), "CONNECTED")
    body = {"to": "5511777777777", "text": "your order is on its way"}

    async def send() -> tuple[int, dict]:
        return await agent.ask(
            "POST", "/api/instance/a/messages?wait=30", body, headers={"Idempotency-Key": "order-7"}
        )

    status, first = await send()
    assert status == 200
    await agent.kill()
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert await send() == (200, first)
    assert body["text"].encode() not in (agent.state / "agent.db").read_bytes()
    assert b"order-7" not in (agent.state / "outbox.db").read_bytes()


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
