"""Memory for one more worker: what does not fit waits."""

MIB = 1 << 20
SETTINGS = f"[memory]\ntotal = {150 * MIB}\nmachine_share = 0\n"


async def test_many_that_start_at_once_never_take_more_than_there_is(make_agent, eventually):
    agent = make_agent(SETTINGS)
    await agent.start()
    for id in "abcde":
        await agent.create(id)
    await eventually(lambda: held_and_connected(agent), (3, 2))
    await agent.kill()
    await agent.start()  # they have their room before anybody else may ask
    await eventually(lambda: held_and_connected(agent), (3, 2))


async def held_and_connected(agent):
    rows = (await agent.do("GET", "/api/instances"))["instances"]
    held = sum(one["hold"] == "memory_full" for one in rows)
    return held, sum(one["connection_status"] == "CONNECTED" for one in rows)
