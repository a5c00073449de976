"""A running agent takes on new settings, or names those that wait for its next start."""

import signal

START = "[start]\nstagger = 0\nfirst_check = 0\n"


def reload(agent, text: str) -> None:
    agent.config.write_text(text)
    agent.process.send_signal(signal.SIGHUP)


async def test_a_new_interval_of_checks_holds_at_once(make_agent, eventually):
    agent = make_agent("[health]\ninterval = 60\n", base=START)
    await agent.start()
    await agent.create("a")
    await eventually(lambda: agent.status("a"), "QR_REQUIRED")

    async def checks() -> int:
        return (await agent.do("GET", "/api/repairs/statistics"))["checked"]

    before = await checks()
    reload(agent, agent.config.read_text().replace("interval = 60", "interval = 1"))

    async def checked_again() -> bool:
        return await checks() > before + 2

    await eventually(checked_again, within=15)


async def test_an_instance_that_was_added_to_the_file_is_made(make_agent, eventually):
    agent = make_agent("[[instance]]\nid = 'one'\nengine = 'sandbox'\n", base=START)
    await agent.start()
    text = agent.config.read_text().replace("'sandbox'\n", "'sandbox'\nenabled = false\n")
    reload(agent, text + "[[instance]]\nid = 'two'\nengine = 'sandbox'\n")

    async def known() -> bool:
        return (await agent.ask("GET", "/api/instance/two"))[0] == 200

    await eventually(known)
    await eventually(lambda: agent.status("two"), "QR_REQUIRED")
    assert "one exists: what [[instance]] declares is for its creation" in agent.log.read_text()
    assert (await agent.show("one"))["enabled"] is True
