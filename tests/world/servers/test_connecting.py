"""Sessions that hang while their server connects them."""

import asyncio

import pytest

from agent.backends.evolution_renewal import folder_name
from tests.standin.evolution import StandIn, Times
from tests.world.servers.test_evolution import Watched, table


@pytest.fixture
async def standin():
    """What it answers before it is done is done half a second later."""
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


async def show_codes(one, eventually, *ids):
    """Adopted, and each shows its code."""
    shown = dict.fromkeys(ids, "QR_REQUIRED")
    await eventually(one.statuses, shown)


async def steps(one, id):
    story = await one.agent.story(id)
    done = [told.split(":")[0] for kind, told in story if kind == "repair"]
    return [step for step in done if step != "back_up"]


async def told_that_it_hangs(one, id):
    """Also while it is being adopted."""
    return id in await one.statuses() and await one.told(id, "verdict", "stuck: ")


async def over(one, id):
    return [told for kind, told in await one.agent.story(id) if kind == "repair_over"]


async def test_an_unpaired_session_is_created_again_without_help_until_it_shows_a_code(
    begin, standin, eventually
):
    one = await begin("till")
    before = standin.instances["till"]
    await eventually(one.statuses, {"till": "QR_REQUIRED"})
    await eventually(lambda: over(one, "till"))
    assert await steps(one, "till") == ["restart", "cleanup"]
    assert await over(one, "till") == ["cleaned: it waits for a scan of its QR code"]
    assert standin.instances["till"] is not before
    story = [told for _, told in await one.agent.story("till")]
    assert not any("outdated" in told or "needs person" in told for told in story), story
    assert standin.instances["till"].scan()
    await eventually(lambda: one.agent.status("till"), "CONNECTED")


async def test_ensure_healthy_of_a_paired_session_ends_in_a_code_where_others_are_connected(
    begin, standin, eventually
):
    standin.add("other", "open")
    one = await begin("shop", state="open")
    await eventually(lambda: one.all_connected(2))
    hang(standin, "shop")
    await eventually(lambda: one.told("shop", "verdict", "stuck"))
    told = await one.agent.do("POST", "/api/instance/shop/ensure-healthy?wait=120")
    assert {key: told[key] for key in ("healthy", "cleaned", "recovered")} == {
        "healthy": True,
        "cleaned": True,
        "recovered": False,
    }
    assert await one.agent.status("shop") == "QR_REQUIRED"
    # Real servers answer a logout with success and do nothing: it cannot tell WhatsApp.
    assert await steps(one, "shop") == ["restart", "cleanup"]
    assert standin.instances["shop"].scan()
    await eventually(lambda: one.agent.status("shop"), "CONNECTED")


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
    assert "WhatsApp is not reached from the server" in told["message"]
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


async def test_a_marked_pairing_ends_by_ensure_healthy_only_with_its_second_word(
    begin, standin, eventually
):
    standin.add("other", "open")
    one = await begin("shop", state="open")
    await eventually(lambda: one.all_connected(2))
    await one.agent.do("PUT", "/api/instance/shop/passkey", {"needed": True})
    hang(standin, "shop")
    await eventually(lambda: one.told("shop", "verdict", "stuck"))
    path = "/api/instance/shop/ensure-healthy?wait=120"
    status, told = await one.agent.ask("POST", path, {"confirm": True})
    assert (status, told["error"], told["field"]) == (409, "confirm_passkey", "confirm_passkey")
    status, told = await one.agent.ask("POST", path)
    assert (status, told["error"]) == (503, "confirm_passkey"), told
    assert not [path for path in standin.paths if path.startswith("DELETE")]


async def test_one_that_hangs_behind_its_own_proxy_keeps_its_pairing_whoever_else_connects(
    make_agent, standin, eventually
):
    proxy = {"enabled": True, "host": "10.0.0.9", "port": "3128", "protocol": "http"}
    standin.add("shop", "open").proxy = proxy
    standin.add("other", "open")
    # Else each of its three rounds would wait for half an hour.
    rounds = "\n[recovery]\ntries = 1\nrounds = 1\nround_pause = 60\n"
    agent = make_agent(table(standin, adopt=["other"]) + rounds)
    await start_with_its_own(agent, "shop")
    one = Watched(agent, standin)
    await eventually(lambda: one.all_connected(2))
    hang(standin, "shop")

    async def restarts():
        return (await steps(one, "shop")).count("restart")

    await eventually(lambda: has_more(restarts, 2))
    assert set(await steps(one, "shop")) == {"restart"}
    standin.instances["shop"].proxy = None  # now the other's connection is the proof
    await eventually(lambda: one.agent.status("shop"), "QR_REQUIRED", within=4000)
    assert "cleanup" in await steps(one, "shop")


async def has_more(count, than):
    return await count() > than


async def test_repairs_asked_for_while_whatsapp_is_silent_say_so_and_later_bring_codes(
    begin, standin, eventually
):
    standin.silent = True
    one = await begin("a", "b", "c", "d")
    for id in "abcd":
        await eventually(lambda id=id: told_that_it_hangs(one, id))

    async def ask(id, word):
        path = f"/api/instance/{id}/{word}"
        body = {"confirm": True} if word == "cleanup" else None
        if word == "setup":
            path, body = "/api/v1/whatsapp/setup?wait=120", {"name": id, "instanceName": id}
        wait = "" if "?" in path else "?wait=120"
        status, told = await one.agent.ask("POST", path + wait, body)
        return status, told

    words = ("cleanup", "ensure-healthy", "setup", "recover")
    answers = await asyncio.gather(*(ask(*each) for each in zip("abcd", words, strict=True)))
    for status, told in (answers.pop(2), answers.pop(1)):
        assert (status, told["error"]) == (503, "whatsapp_away"), told
    for status, told in answers:
        # 202: what it waits for cannot come soon, and the repair goes on.
        assert status in (200, 202), told
        assert (told["healthy"], told["recovered"]) == (False, False), told
        assert told["sentence"].startswith("no code for"), told

    standin.silent = False
    for instance in standin.instances.values():
        instance.stuck = False  # what it began while WhatsApp was silent goes on hanging
    answers = await asyncio.gather(*(ask(*each) for each in zip("abc", words[:3], strict=True)))
    assert [(status, told["healthy"]) for status, told in answers] == [(200, True)] * 3, answers
    assert answers[2][1]["qr"] == standin.instances["c"].code


async def test_a_clean_up_that_is_asked_for_waits_for_no_milder_step(begin, standin, eventually):
    one = await begin("shop", state="open")
    await eventually(lambda: one.all_connected(1))
    hang(standin, "shop")
    await eventually(lambda: one.told("shop", "repaired", "restart: done"))
    told = await one.agent.do("POST", "/api/instance/shop/cleanup?wait=120", {"confirm": True})
    assert (told["healthy"], told["cleaned"]) == (True, True)


async def test_a_list_that_calls_an_open_session_closed_ends_no_session(begin, standin, eventually):
    one = await begin("shop", state="open")
    await eventually(lambda: one.all_connected(1))
    instance = standin.instances["shop"]
    instance.row.set(connectionStatus="close")
    instance.row.set = lambda **changes: None  # whatever is done, it says so
    await eventually(lambda: one.verdict("shop"), ("corrupted", "remote_disagrees"))
    await eventually(lambda: one.told("shop", "repaired", "restart: done"))
    await eventually(lambda: one.agent.status("shop"), "CONNECTED")
    looked = standin.asked["GET /instance/fetchInstances"]
    await eventually(lambda: standin.asked["GET /instance/fetchInstances"] > looked + 2)
    await eventually(lambda: one.agent.status("shop"), "CONNECTED")
    assert await over(one, "shop") == [], "what changed nothing has recovered nothing"
    story = [told for kind, told in await one.agent.story("shop") if kind == "status"]
    assert not any("AUTH_FAILURE" in told for told in story), story
    assert sum(told.startswith("CONNECTED →") for told in story) <= 1, "no coming and going"
    assert instance.creds, "its pairing stands"
    assert (await steps(one, "shop")).count("restart") == 1


async def test_an_incident_is_over_when_its_sessions_show_their_codes(begin, standin, eventually):
    one = await begin("till-1", "till-2", "till-3")
    await eventually(one.incident)
    await eventually(one.incident, False)
    await show_codes(one, eventually, "till-1", "till-2", "till-3")
    events = (await one.agent.do("GET", "/api/events?limit=500"))["events"]
    assert any(each["kind"] == "canary" for each in events)
    told = await one.agent.do("POST", "/api/instance/till-1/ensure-healthy?wait=120")
    assert told["healthy"], told


async def test_the_server_back_by_itself_ends_the_incident_and_holds_up_no_request(
    begin, standin, eventually
):
    one = await begin("till-1", "till-2", "till-3")
    await eventually(one.incident)
    for name in ("till-1", "till-2", "till-3"):
        standin.instances[name].stuck = False
        standin.instances[name].connect()
    told = await one.agent.do("POST", "/api/instance/till-2/ensure-healthy?wait=120")
    assert told["healthy"], told
    await eventually(one.incident, False)
