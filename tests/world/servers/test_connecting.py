"""Sessions that hang while their server connects them."""

import asyncio

import pytest

from agent.backends.evolution_calls import folder_name
from agent.clock import boot_now
from tests.standin.evolution import StandIn, Times
from tests.world.servers.test_evolution import Watched, table


@pytest.fixture
async def standin():
    """A server that answers a removal half a second before it is done."""
    one = await StandIn.open(times=Times.fast(removal=0.5))
    yield one
    await one.close()


@pytest.fixture
def begin(make_agent, standin):
    async def begin(*sessions, state="close", **more):
        for name in sessions:
            # Never paired: it hangs as soon as it is asked to connect.
            standin.add(name, state).stuck = state == "close"
        agent = make_agent(table(standin, adopt=["other"], **more))
        await start_with_its_own(agent, *sessions)
        return Watched(agent, standin)

    return begin


async def start_with_its_own(agent, *sessions):
    """As if the agent had made them there: what it adopted it would not delete."""
    for name in sessions:
        made = agent.state / "backends" / "evo" / folder_name(name)
        made.mkdir(parents=True)
        (made / "made").touch()
    await agent.start()
    for name in sessions:
        body = {"id": name, "engine": "evolution", "settings": {"backend": "evo"}}
        await agent.do("POST", "/api/instance", body)


def hang(standin, *names):
    for name in names:
        instance = standin.instances[name]
        instance.stuck = True
        instance.connect()


async def steps(one, id):
    return [step for step in await one.agent.steps(id) if step != "back_up"]


@pytest.mark.parametrize("word", ["setup", "ensure-healthy"])
async def test_while_whatsapp_is_away_a_repair_that_is_asked_for_keeps_the_pairing_and_says_so(
    begin, standin, eventually, word
):
    one = await begin("shop", "desk", state="open")
    await eventually(lambda: one.all_connected(2))
    hang(standin, "shop", "desk")
    await eventually(lambda: one.told("shop", "verdict", "stuck"))
    path = "/api/instance/shop/ensure-healthy?wait=120"
    body = {}
    if word == "setup":
        path, body = "/api/v1/whatsapp/setup?wait=120", {"name": "Shop", "instanceName": "shop"}
    status, told = await one.agent.ask("POST", path, body)
    assert (status, told["error"]) == (503, "whatsapp_away"), told
    assert "so the server may not reach WhatsApp" in told["message"]
    assert "the pairing is kept" in told["message"]
    assert "wa-agent ensure-healthy shop --yes" in told["message"]

    async def has_restarted():
        return set(await steps(one, "shop")) == {"restart"}

    await eventually(has_restarted)
    assert not [path for path in standin.paths if path.startswith("DELETE")]

    made_before = standin.instances["shop"]
    told = await one.agent.do("POST", path, {**body, "confirm": True})
    assert (told["healthy"], told["cleaned"]) == (True, True), told
    assert standin.instances["shop"] is not made_before


@pytest.mark.parametrize("version", ["2.3.7", "1.8.6"])
async def test_a_setup_while_whatsapp_is_away_needs_no_second_request(
    make_agent, eventually, version
):
    """Others made the instance, and it hangs."""
    standin = await StandIn.open(version, times=Times())
    standin.silence(True)
    standin.add("shop").connect()
    agent = make_agent(table(standin, adopt=[]))
    await agent.start()
    begun = boot_now()
    body = {"name": "Shop", "instanceName": "shop", "backend": "evo"}
    status, told = await agent.ask("POST", "/api/v1/whatsapp/setup", body)
    assert (status, told["ending"]) == (202, "goes_on") and boot_now() - begun < 11
    await asyncio.sleep(245)
    standin.silence(False)
    await eventually(lambda: agent.status("shop"), "QR_REQUIRED", within=10)
    assert not standin.asked["DELETE /instance/delete"]
    await standin.close()
