"""A server that answers its check and fails at everything else: its circuit opens, once for all."""

import time

from tests.daemon.conftest import remote_settings
from tests.daemon.test_backends import Watched, standin, table

__all__ = ["standin"]

TWO = "breaker_failures = 2\nbreaker_pause = 600\n"


async def watched(make_agent, standin, *names, **more):
    base = remote_settings().replace("[reconnect]\n", f"[reconnect]\n{TWO}", 1)
    for name in names:
        standin.add(name, "open")
    agent = make_agent(table(standin, **more), base=base)
    await agent.start()
    return Watched(agent, standin)


async def circuit(one):
    return (await one.backend())["circuit"]


async def check_until_up(one, eventually):
    """The first good check; one that had begun before its server was well may fail yet."""

    async def check():
        _, told = await one.agent.ask("POST", "/api/backends/evo/check")
        return told if told.get("up") else None

    return await eventually(check)


def restarts(standin):
    return sum(count for path, count in standin.paths.items() if "/instance/restart/" in path)


async def test_calls_that_fail_open_it_and_a_person_closes_it(make_agent, standin, eventually):
    one = await watched(make_agent, standin, "shop", "other")
    await eventually(lambda: one.all_connected(2))
    await standin.front.set("failing", only="/instance/restart")
    standin.instances["shop"].dead = "closed"
    await eventually(lambda: circuit(one), "open", within=40)
    shown = await one.backend()
    assert shown["up"] is True
    assert "its circuit is open for at most" in shown["sentence"]
    metrics = await one.agent.do("GET", "/metrics")
    assert 'wa_backend_circuit{backend="evo",state="open"} 1' in metrics
    await eventually(lambda: one.verdict("other"), ("healthy", ""))
    assert await one.stayed("other"), "what is connected stays so"
    asked = restarts(standin)
    await one.agent.do("POST", "/api/backends/evo/check")
    assert await circuit(one) == "open", "its check was well all the while"
    standin.instances["shop"].dead = ""
    await standin.front.set("")
    await one.check("shop")
    assert restarts(standin) == asked, "nothing was tried while it was open"

    told = await one.agent.do("POST", "/reset-circuit-breaker/evo")
    assert (told["name"], told["circuit"]) == ("evo", "closed")
    await eventually(lambda: one.verdict("shop"), ("healthy", ""), within=60)
    story = [found["kind"] for found in (await one.agent.do("GET", "/api/events"))["events"]]
    assert (story.count("circuit_open"), story.count("circuit_closed")) == (1, 1)


async def test_a_server_that_is_back_closes_it_with_its_first_good_check(
    make_agent, standin, eventually
):
    one = await watched(make_agent, standin, "shop")
    await eventually(lambda: one.all_connected(1))
    await standin.front.set("failing")

    async def checked_until_open():
        await one.agent.ask("POST", "/api/backends/evo/check")
        return await circuit(one)

    await eventually(checked_until_open, "open", within=20)
    await standin.front.set("")
    assert (await check_until_up(one, eventually))["circuit"] == "closed"
    await eventually(lambda: one.all_connected(1), within=40)


async def test_a_server_that_cannot_be_reached_opens_it_not(make_agent, standin, eventually):
    one = await watched(make_agent, standin, "shop")
    await eventually(lambda: one.all_connected(1))
    await standin.front.set("refuse")
    for _ in range(6):
        await one.agent.ask("POST", "/api/backends/evo/check")
    await eventually(lambda: one.verdict("shop"), ("disconnected", "backend_down"), within=20)
    assert await circuit(one) == "closed"
    await standin.front.set("")
    await eventually(lambda: one.all_connected(1))


async def test_where_only_a_session_is_a_trial_it_waits_for_the_pause(
    make_agent, standin, eventually
):
    base = remote_settings().replace("[reconnect]\n", f"[reconnect]\n{TWO}", 1)
    base = base.replace("[backends]\n", '[backends]\ntrial = "session"\n', 1)
    standin.add("shop", "open")
    agent = make_agent(table(standin), base=base)
    await agent.start()
    one = Watched(agent, standin)
    await eventually(lambda: one.all_connected(1))
    await standin.front.set("failing")

    async def checked_until_open():
        await agent.ask("POST", "/api/backends/evo/check")
        return await circuit(one)

    await eventually(checked_until_open, "open", within=20)
    await standin.front.set("")
    assert (await check_until_up(one, eventually))["circuit"] == "open"
    assert (await agent.do("POST", "/api/backends/evo/reset"))["circuit"] == "closed"


async def test_an_open_circuit_is_open_for_the_next_agent_too(make_agent, standin, eventually):
    one = await watched(make_agent, standin, "shop", "other")
    await eventually(lambda: one.all_connected(2))
    await standin.front.set("failing", only="/instance/restart")
    standin.instances["shop"].dead = "closed"
    await eventually(lambda: circuit(one), "open", within=40)
    await one.agent.kill()
    asked = restarts(standin)
    await one.agent.start()
    shown = await one.backend()
    assert shown["circuit"] == "open"
    await one.check("shop")
    assert restarts(standin) == asked, "a new agent is no reason to try at once"
    assert (await one.agent.do("POST", "/api/backends/evo/reset"))["circuit"] == "closed"
    await one.agent.kill()
    await one.agent.start()
    assert await circuit(one) == "closed"


def tries(standin):
    """Requests that make the server work for a session."""
    acts = ("/instance/restart/", "/instance/connect/")
    return sum(count for path, count in standin.paths.items() if any(act in path for act in acts))


async def test_while_a_servers_last_check_is_bad_no_session_tries(make_agent, standin, eventually):
    """Its patience is not over: its sessions are not held yet, and only checks go there."""
    standin.add("shop", "open")
    base = remote_settings().replace("patience = 1.0", "patience = 300", 1)
    agent = make_agent(table(standin), base=base.replace("base = 0.2", "base = 3", 1))
    await agent.start()
    one = Watched(agent, standin)
    await eventually(lambda: one.all_connected(1))
    standin.instances["shop"].unload()
    standin.silent = standin.instances["shop"].stuck = True
    standin.instances["shop"].load(connects=True)
    await eventually(lambda: tries(standin) >= 2, within=60)  # and the next one is due soon
    await standin.front.set("failing")
    await eventually(one.backend_word, "failing", within=20)
    asked, failed = tries(standin), time.monotonic()
    # Longer than the delay before the next try, be it the second one.
    await eventually(lambda: time.monotonic() - failed > 8)
    assert (await agent.show("shop"))["reason"] != "backend_down"
    assert tries(standin) == asked
    standin.silent = standin.instances["shop"].stuck = False
    await standin.front.set("")
    await agent.do("POST", "/api/backends/evo/check")
    await eventually(lambda: one.all_connected(1), within=20)
