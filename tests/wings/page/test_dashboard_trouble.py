"""What the dashboard says when something is wrong, in a real browser before a real agent."""

from collections.abc import AsyncIterator, Callable

import pytest

from tests.api.conftest import OpenHouse
from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent
from tests.standin.evolution import StandIn
from tests.wings.page.browsing import check_manners, listening, make_agent, picture, pill, watcher
from tests.wings.page.watcher import Watcher

__all__ = ["listening", "make_agent", "watcher"]

TRUSTED = "\n[api]\ntrust_loopback = true\nhistory = 60\n"
# Answers that end after their head, as of an agent that is killed.
BREAKS_OFF = """(() => {
    const ask = window.fetch;
    const cut = () => new ReadableStream({pull: (body) => body.error(new TypeError("cut"))});
    window.__cut = true;
    window.fetch = async (...how) => window.__cut ? new Response(cut()) : ask(...how);
})()"""
ROWS = "[...document.querySelectorAll('#{} .attention-row')].map((e) => e.innerText)"
OVERVIEW, INSTANCE = ROWS.format("overview"), ROWS.format("instance")


@pytest.fixture
async def standin() -> AsyncIterator[StandIn]:
    one = await StandIn.open()
    yield one
    await one.close()


async def test_a_trouble_is_shown_with_what_to_do_and_goes_with_its_cause(
    listening: Callable[..., RunningAgent], watcher: Watcher, eventually: Eventually
) -> None:
    agent = listening(TRUSTED)
    await agent.start()
    await agent.create("sales")
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    await watcher.go(f"http://{agent.listen}/")
    await watcher.until(pill("sales", "good"))
    await agent.fault("sales", "temp-ban")
    said = "banned the account of sales for a time"
    await watcher.until(f"{OVERVIEW}.some((t) => t.includes('{said}'))")
    row = "[data-trouble=temporary_ban]"
    ask = f"document.querySelector('{row} button[aria-expanded]')"
    assert await watcher.run(f"{ask}.getAttribute('aria-expanded')") == "false"
    await watcher.run(f"{ask}.focus()")
    await watcher.press("Enter", 13)
    await watcher.until(f"document.querySelector('{row} .advice').checkVisibility()")
    assert await watcher.run(f"{ask}.getAttribute('aria-expanded')") == "true"
    advice = f"document.querySelector('{row} .advice').textContent"
    assert "Each login makes it longer" in await watcher.run(advice)
    await picture(watcher, "trouble")
    assert await watcher.run(f"document.activeElement === {ask}")

    await watcher.click(f"{row} .attention-acts a")
    await watcher.until("location.hash === '#/instance/sales'")
    await watcher.until(f"{INSTANCE}.some((t) => t.includes('{said}'))")
    story = "document.querySelector('#instance .story').innerText"
    await agent.clear("sales")
    await agent.do("POST", "/force-reconnection/sales")
    await watcher.until(f"!{INSTANCE}.length")
    await watcher.until(f"{story}.includes('temporary_ban of sales is over')")
    await watcher.run("location.hash = '#/'")
    await watcher.until(f"!{OVERVIEW}.some((t) => t.includes('sales'))")
    assert watcher.loads == 1
    await check_manners(watcher, agent)


async def test_the_worst_comes_first_and_what_is_alike_is_one_row(
    listening: Callable[..., RunningAgent], watcher: Watcher, eventually: Eventually
) -> None:
    agent = listening(TRUSTED)
    await agent.start()
    ids = [f"shop-{number}" for number in range(1, 6)]
    for id in (*ids, "banned", "well"):
        await agent.create(id)
    for id in (*ids, "banned", "well"):
        await eventually(lambda id=id: agent.status(id), "CONNECTED")
    for id in ids:
        await agent.fault(id, "temp-ban")

    async def temporary_bans() -> int:
        found = (await agent.do("GET", "/api/troubles"))["troubles"]
        return sum(one["kind"] == "temporary_ban" for one in found)

    await eventually(temporary_bans, len(ids))
    await agent.fault("banned", "ban")  # the youngest of the critical ones stands first
    await watcher.size(390, 844, phone=True)
    await watcher.go(f"http://{agent.listen}/")
    await watcher.until(f"{OVERVIEW}.some((t) => t.includes('4 more alike'))")
    await watcher.until(f"{OVERVIEW}[0].includes('given banned up')")
    rows = await watcher.run(OVERVIEW)
    assert rows[0].startswith("Critical")
    assert sum("banned the account of shop-" in one for one in rows) == 1, rows
    assert not any("banned should be connected" in one for one in rows), "it says nothing new"
    assert await watcher.run("document.documentElement.scrollWidth") <= 390
    await picture(watcher, "troubles-phone")

    # Down, and not because anybody wanted it: before those that are well, and counted.
    cards = "[...document.querySelectorAll('.card')].map((e) => e.dataset.id)"
    await watcher.until(f"{cards}.join() === '{','.join(['banned', *ids, 'well'])}'")
    trouble = "document.querySelector('[data-choice=trouble] .chip-count').textContent"
    await watcher.until(f"{trouble} === '6'")
    words = "document.querySelector('[data-id=shop-1] .pill').textContent"
    await watcher.until(f"{words} === 'Waits for its next try'")
    card = await watcher.run("document.querySelector('[data-id=shop-1]').innerText")
    assert card.count("next try") == 2, f"its pill and its countdown, and no older one: {card}"

    await watcher.click("[data-trouble=temporary_ban] button[aria-expanded]")
    every = "[...document.querySelectorAll('[data-trouble=temporary_ban] .attention-all a')]"
    assert sorted(await watcher.run(f"{every}.map((e) => e.textContent)")) == ids
    await check_manners(watcher, agent)


async def test_an_answer_that_breaks_off_is_asked_for_again(
    open_house: OpenHouse, watcher: Watcher
) -> None:
    async with open_house(trust_loopback=True) as house:
        await watcher.call("Page.addScriptToEvaluateOnNewDocument", {"source": BREAKS_OFF})
        await watcher.go(house.url + "/")
        await watcher.until("document.querySelector('#live').textContent === 'Not live'")
        await watcher.run("window.__cut = false")
        await watcher.until("document.querySelector('#live').textContent === 'Live'")
        assert watcher.complaints == []


async def test_an_incident_has_one_row_and_only_those_it_holds_say_so(
    listening: Callable[..., RunningAgent], watcher: Watcher, eventually: Eventually
) -> None:
    agent = listening(TRUSTED)
    await agent.start()
    ids = ("a", "b", "c", "well", "idle")
    for id in ids:
        await agent.create(id)
    for id in ids:
        await eventually(lambda id=id: agent.status(id), "CONNECTED")
    await agent.do("POST", "/api/instance/idle/disable")
    await watcher.go(f"http://{agent.listen}/")
    await watcher.until(pill("well", "good"))
    for id in ("a", "b", "c"):
        await agent.fault(id, "drop", 600)
    await watcher.until(f"{OVERVIEW}.some((t) => t.includes('connection_lost on 3 instances'))")
    await watcher.until(f"{OVERVIEW}.some((t) => t.includes('Advice'))")
    rows = await watcher.run(OVERVIEW)
    assert sum("fail alike" in row or "connection_lost" in row for row in rows) == 1, rows
    words = "[...document.querySelectorAll('[data-id] .pill')].map((e) => e.textContent)"
    await watcher.until(f"{words}.filter((t) => t === 'Held back').length >= 2")
    trouble = "Number(document.querySelector('[data-choice=trouble] .chip-count').textContent)"
    await watcher.until(f"{trouble} === 3")
    for id in ("well", "idle"):
        card = await watcher.run(f"document.querySelector('[data-id={id}]').innerText")
        assert "network" not in card, card
    await picture(watcher, "incident")
    await check_manners(watcher, agent)
