"""The faults of a working day: each ends where it should, by itself."""

import json


async def connected(agent, eventually, id="a", **settings):
    await agent.create(id, **settings)
    await eventually(lambda: agent.status(id), "CONNECTED")


async def back_with_another_worker(agent, eventually, before, id="a"):
    await eventually(lambda: agent.is_back(id, before))


async def unit_state(agent):
    return (await agent.show("a"))["unit"]["state"]


def instance_file(agent):
    return json.loads((agent.state / "sessions" / "a" / "instance.json").read_text())


async def test_f02_a_killed_worker_comes_back_and_is_counted_once(agent, eventually):
    await connected(agent, eventually)
    before, codes = await agent.run_of("a"), await agent.codes("a")
    await agent.kill_worker("a")
    await back_with_another_worker(agent, eventually, before)
    shown = await agent.show("a")
    assert shown["restarts_by_reason"]["crash"] == 1
    assert sum(shown["reconnects_by_reason"].values()) == 1
    assert await agent.codes("a") == codes


async def test_f12_a_crash_loop_ends_in_the_agents_own_backoff(make_agent, eventually):
    agent = make_agent('[sessions]\non_logout = "stop"\n')
    await agent.start()
    await connected(agent, eventually)

    async def keep_killing():
        await agent.kill_worker("a")
        return any("its worker failed" in sentence for _, sentence in await agent.story("a"))

    await eventually(keep_killing)
    await eventually(lambda: agent.status("a"), "CONNECTED")
    said = [sentence for kind, sentence in await agent.story("a") if kind == "action"]
    assert any(sentence.startswith("start: its worker failed") for sentence in said)


async def test_after_a_ban_no_worker_is_left_that_could_log_in(agent, eventually):
    await connected(agent, eventually)
    await agent.fault("a", "ban")
    await eventually(lambda: agent.status("a"), "AUTH_FAILURE")
    await eventually(lambda: unit_state(agent), "inactive")
    await eventually(lambda: instance_file(agent)["ended"], "banned")
    # Whatever starts it now (its host after a crash, the boot), a login would succeed.
    file = agent.state / "sessions" / "a" / "session" / "faults.json"
    file.write_text('{"version": 1, "faults": {}}')
    await agent.kill()
    as_before = instance_file(agent)
    del as_before["ended"]  # as an agent of an earlier version left it
    (agent.state / "sessions" / "a" / "instance.json").write_text(json.dumps(as_before))
    await agent.start()
    await agent.do("POST", "/api/health/check")
    assert instance_file(agent)["ended"] == "banned"
    shown = await agent.show("a")
    assert (shown["unit"]["state"], shown["reason"]) == ("inactive", "banned")
    await agent.do("POST", "/api/instance/a/start")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    await eventually(lambda: instance_file(agent)["ended"], "")
