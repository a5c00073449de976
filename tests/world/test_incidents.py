"""Many that fail alike: one incident, starts and restarts held, one that tries first."""

import pytest

from tests.waiting import connected

SETTINGS = "[incident]\ncanary_first = 5\n"
IDS = ("a", "b", "c")
ACTS = ("action", "repair")


@pytest.fixture
async def three(make_agent, eventually):
    """Three connected instances whose sync will not end, after a change that hit everyone."""
    agent = make_agent(SETTINGS)
    await agent.start()
    await connected(agent, eventually, *IDS)
    for id in IDS:
        await agent.fault(id, "stuck-loading", 86400)

    async def all_are_in():
        found = await incidents(agent)
        return bool(found) and len(found[0]["members"]) == len(IDS)

    await eventually(all_are_in)
    return agent


async def incidents(agent):
    return (await agent.do("GET", "/api/incidents"))["incidents"]


async def fleet_story(agent):
    found = (await agent.do("GET", "/api/events?limit=500"))["events"]
    return [(one["kind"], one["instance"], one["sentence"]) for one in reversed(found)]


async def since(agent, kind):
    """Entries after the last one of that kind: none while there is none of that kind."""
    story = await fleet_story(agent)
    at = max((i for i, one in enumerate(story) if one[0] == kind), default=len(story))
    return story[at + 1 :]


async def said(agent, kind):
    return [sentence for one, _, sentence in await fleet_story(agent) if one == kind]


async def test_an_incident_has_one_canary_and_its_success_frees_all_members(three, eventually):
    (shown,) = await incidents(three)
    assert (shown["group"], shown["code"], shown["kind"]) == ("sandbox", "phase_sync", "change")
    assert sorted(shown["members"]) == list(IDS)

    async def canary():
        found = await incidents(three)
        return found and found[0]["canary"]

    first = await eventually(canary)
    for id in IDS:
        await eventually(lambda id=id: three.hold(id), "incident")
    await eventually(lambda: tried(three, first))
    assert 'wa_agent_incident_active{engine="sandbox"} 1.0' in await three.do("GET", "/metrics")

    async def cured():
        """Whose turn it is can connect; on a slow machine it may be the next one's."""
        if turn := await canary():
            await three.fault(turn, "clear")
        return not await incidents(three)

    await eventually(cured)
    (over,) = await eventually(lambda: said(three, "incident_over"))
    healed = next(id for id in IDS if f"its canary {id} is connected again" in over)
    assert len(await said(three, "incident")) == 1
    turn = ""
    for kind, id, _ in await since(three, "incident"):
        turn = id if kind == "canary" else turn
        if kind == "incident_over":
            break
        assert kind not in ACTS or id == turn, "only the canary may try"
    others = [id for id in IDS if id != healed]
    for id in others:
        await three.fault(id, "clear")
    for id in IDS:
        await eventually(lambda id=id: three.status(id), "CONNECTED")
    assert [(await three.show(id))["paired"] for id in IDS] == [True] * 3


async def tried(agent, id):
    """The steps that it began since its turn; on a slow machine another one's has begun."""
    story = await fleet_story(agent)
    turn = next((i for i, one in enumerate(story) if one[:2] == ("canary", id)), len(story))
    return [one for one in story[turn:] if one[:2] == ("repair", id)]
