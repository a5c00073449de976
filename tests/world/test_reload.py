"""A running agent takes on new settings, or names those that wait for its next start."""

from datetime import datetime

from tests.world.sending import ID, OUTBOX, say


async def test_health_says_when_settings_were_read_and_that_others_were_refused(
    make_agent, eventually
):
    agent = make_agent("[health]\ninterval = 60\n")
    await agent.start()

    async def told() -> tuple[str, bool]:
        its = (await agent.do("GET", "/api/health"))["agent"]
        return its["settings_read"], its["settings_refused"]

    first, refused = await told()
    assert not refused
    text = agent.config.read_text()
    agent.reload(f"{text}[[webhook]]\nname = 'a'\nurl = 'http://a'\nkinds = ['statsu']\n")
    await eventually(told, (first, True))
    agent.reload(text)

    async def taken() -> bool:
        at, refused = await told()
        return at > first and not refused

    await eventually(taken)


async def test_an_instance_that_was_added_to_the_file_is_made(make_agent, eventually, caplog):
    caplog.set_level("INFO")
    agent = make_agent("[[instance]]\nid = 'one'\nengine = 'sandbox'\n")
    await agent.start()
    text = agent.config.read_text().replace("'sandbox'\n", "'sandbox'\nenabled = false\n")
    # A folder that is another session's keeps no other one from running, at the next start as well.
    (agent.state / "sessions" / "bad" / "session" / "more").mkdir(parents=True)
    row = "[[instance]]\nid = '{}'\nengine = 'sandbox'\n"
    agent.reload(text + row.format("bad") + row.format("two"))

    async def known() -> bool:
        return (await agent.ask("GET", "/api/instance/two"))[0] == 200

    await eventually(known)
    await eventually(lambda: agent.status("two"), "CONNECTED")  # its phone scans by itself
    await eventually(lambda: "one exists: [[instance]] applies at its creation" in caplog.text)
    assert (await agent.show("one"))["enabled"] is True
    agent.reload(text + "[worker]\nburst = 6\n")
    await eventually(lambda: "worker.burst takes effect at" in caplog.text)
    caplog.clear()
    agent.reload(text)
    await eventually(lambda: "settings read again" in caplog.text)
    assert "worker.burst" not in caplog.text, "it is as the agent started"
    assert (await agent.do("DELETE", "/api/instance/one"))["declared"], "the next start makes it"
    await agent.stop()
    await agent.start()
    await eventually(lambda: agent.status("two"), "CONNECTED")


async def test_the_outbox_and_the_log_take_on_what_was_read(agent, eventually, monkeypatch):
    levels: list[str] = []
    monkeypatch.setattr("agent.daemon.main.set_level", levels.append)
    await agent.create(ID, scan="manual")
    text = agent.config.read_text().replace("[agent]\n", "[agent]\nlog_level = 'debug'\n")
    agent.reload(text + "[messages]\nexpires_hours = 1\n")
    await eventually(lambda: levels, ["debug"])
    shown = await agent.do("GET", f"{OUTBOX}/{await say(agent, 'soon')}")
    begun, ends = (datetime.fromisoformat(shown[at]) for at in ("accepted", "expires"))
    assert (ends - begun).total_seconds() == 3600
