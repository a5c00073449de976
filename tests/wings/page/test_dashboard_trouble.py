"""What the dashboard says when something is wrong, in a real browser before a real agent."""

import json
import time
from collections.abc import AsyncIterator, Callable

import pytest

from agent.core.model import InstanceId
from tests.api.conftest import OpenHouse
from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent, remote_settings
from tests.daemon.test_backends import table
from tests.fakes.supervisor import make_view
from tests.standin.evolution import StandIn
from tests.wings.page.browsing import check_manners, listening, make_agent, picture, pill, watcher
from tests.wings.page.watcher import Watcher

__all__ = ["listening", "make_agent", "watcher"]

MACHINES = (
    *("WaHostCpuHigh", "WaHostMemoryHigh", "WaHostMemoryCritical", "WaDiskSpaceLow", "WaDiskFills"),
    *("WaSessionResponseSlow", "WaErrorRateHigh", "WaReconnectStorm", "WaFleetReconnectStorm"),
)
"""Alerts that a busy machine raises between those of a test."""
IMPATIENT = (
    "\n[api]\ntrust_loopback = true\nhistory = 60\n"
    f"[alerts]\npatience = 0.01\noff = {list(MACHINES)}\n"
)
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


async def test_an_alert_is_shown_with_what_to_do_and_goes_with_its_cause(
    listening: Callable[..., RunningAgent], watcher: Watcher, eventually: Eventually
) -> None:
    agent = listening(IMPATIENT)
    await agent.start()
    await agent.create("sales")
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    await watcher.go(f"http://{agent.listen}/")
    await watcher.until(pill("sales", "good"))
    await agent.fault("sales", "drop", 600)
    await watcher.until(
        f"{OVERVIEW}.some((t) => t.includes('sales should be connected and is not'))"
    )
    row = "[data-alert=WaSessionDown]"
    ask = f"document.querySelector('{row} button[aria-expanded]')"
    assert await watcher.run(f"{ask}.getAttribute('aria-expanded')") == "false"
    await watcher.run(f"{ask}.focus()")
    await watcher.press("Enter", 13)
    await watcher.until(f"document.querySelector('{row} .advice').checkVisibility()")
    assert await watcher.run(f"{ask}.getAttribute('aria-expanded')") == "true"
    advice = f"document.querySelector('{row} .advice')"
    assert await watcher.run(f"{advice}.querySelector('code').textContent") == "wa-agent why sales"
    assert await watcher.run(f"{advice}.querySelector('a').href") == (
        f"http://{agent.listen}/runbook#wasessiondown"
    )
    await picture(watcher, "alert")
    assert await watcher.run(f"document.activeElement === {ask}")

    await watcher.click(f"{row} .attention-acts a")
    await watcher.until("location.hash === '#/instance/sales'")
    await watcher.until(f"{INSTANCE}.some((t) => t.includes('sales should be connected'))")
    story = "document.querySelector('#instance .story').innerText"
    await watcher.until(f"{story}.includes('Connected → Reconnecting: the connection was lost')")
    assert "RECONNECTING" not in await watcher.run(story)

    await agent.clear("sales")
    await agent.do("POST", "/force-reconnection/sales")
    await watcher.until(f"!{INSTANCE}.length")
    await watcher.until(f"{story}.includes('WaSessionDown is over for sales, after ')")
    await watcher.run("location.hash = '#/'")
    await watcher.until(f"!{OVERVIEW}.some((t) => t.includes('sales'))")
    assert watcher.loads == 1
    await check_manners(watcher, agent)


async def test_no_alert_about_a_missing_scan_stands_above_the_code(
    listening: Callable[..., RunningAgent], watcher: Watcher
) -> None:
    agent = listening(IMPATIENT)
    await agent.start()
    await agent.create("lobby", scan="manual")
    await watcher.go(f"http://{agent.listen}/")
    waits = "t.includes('lobby waits for a person to scan its QR code')"
    await watcher.until(f"{OVERVIEW}.some((t) => {waits})")
    assert (await watcher.run(OVERVIEW))[0].startswith("Warning"), "no critical one for a new one"
    await watcher.run("location.hash = '#/instance/lobby'")
    await watcher.until("document.querySelector('.qr img').naturalWidth > 100")
    assert await watcher.run(INSTANCE) == []
    assert await watcher.run("document.querySelector('[data-do=scan]').checkVisibility()")
    await watcher.click("[data-do=scan]")
    await watcher.until("!document.querySelector('[data-do=scan]').checkVisibility()")
    await check_manners(watcher, agent)


async def test_the_worst_comes_first_and_what_is_alike_is_one_row(
    listening: Callable[..., RunningAgent], watcher: Watcher, eventually: Eventually
) -> None:
    agent = listening(IMPATIENT)
    await agent.start()
    ids = [f"shop-{number}" for number in range(1, 6)]
    for id in (*ids, "banned", "well"):
        await agent.create(id)
    for id in (*ids, "banned", "well"):
        await eventually(lambda id=id: agent.status(id), "CONNECTED")
    for id in ids:
        await agent.fault(id, "temp-ban")

    async def temporary_bans() -> int:
        found = (await agent.do("GET", "/api/alerts?state=firing"))["alerts"]
        return sum(one["name"] == "WaSessionTemporaryBan" for one in found)

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
    await picture(watcher, "alerts-phone")

    # Down, and not because anybody wanted it: before those that are well, and counted.
    cards = "[...document.querySelectorAll('.card')].map((e) => e.dataset.id)"
    await watcher.until(f"{cards}.join() === '{','.join(['banned', *ids, 'well'])}'")
    trouble = "document.querySelector('[data-choice=trouble] .chip-count').textContent"
    await watcher.until(f"{trouble} === '6'")
    words = "document.querySelector('[data-id=shop-1] .pill').textContent"
    await watcher.until(f"{words} === 'Waits for its next try'")
    card = await watcher.run("document.querySelector('[data-id=shop-1]').innerText")
    assert card.count("next try") == 2, f"its pill and its countdown, and no older one: {card}"

    await watcher.click("[data-alert=WaSessionTemporaryBan] button[aria-expanded]")
    every = "[...document.querySelectorAll('[data-alert=WaSessionTemporaryBan] .attention-all a')]"
    assert sorted(await watcher.run(f"{every}.map((e) => e.textContent)")) == ids
    advice = await watcher.run(
        "document.querySelector('[data-alert=WaSessionTemporaryBan] code').innerText"
    )
    assert advice == "wa-agent why ID"
    await check_manners(watcher, agent)


async def test_lines_are_there_as_soon_as_the_page_is(
    listening: Callable[..., RunningAgent], watcher: Watcher, eventually: Eventually
) -> None:
    agent = listening(IMPATIENT + "\n[memory]\ninterval = 1\n")
    await agent.start()
    await agent.create("sales", messages_per_minute=600)

    async def has_a_past() -> bool:
        found = (await agent.do("GET", "/api/trends"))["instances"].get("sales")
        return bool(found) and sum(one is not None for one in found["memory"]) > 4

    await eventually(has_a_past)
    for _ in range(2):
        await watcher.go(f"http://{agent.listen}/")
        await watcher.until(pill("sales", "good"))
        lines = "[...document.querySelectorAll('[data-id=sales] polyline')]"
        points = f"{lines}.map((e) => e.getAttribute('points').split(' ').length)"
        # Five looks of the page itself would take 20 s.
        await watcher.until(f"{points}.every((n) => n > 4)", within=10)
    said = await watcher.run("document.querySelector('[data-id=sales] .spark').ariaLabel")
    assert "Memory of sales: " in said
    assert "MiB" in said
    await watcher.run("location.hash = '#/instance/sales'")
    await watcher.until("document.querySelector('#instance polyline').getAttribute('points') > ''")
    said = "document.querySelector('#instance .counted').textContent"
    await watcher.until(f"{said}.includes('restarts and reconnects are counted since ')")
    await check_manners(watcher, agent)

    # The agent's restart takes nothing of it away.
    before = len((await agent.do("GET", "/api/trends"))["instances"]["sales"]["memory"])
    begun = await watcher.run(said)
    await agent.stop()
    await agent.start()
    after = (await agent.do("GET", "/api/trends"))["instances"]["sales"]["memory"]
    assert len(after) >= before
    assert sum(one is not None for one in after) > 4
    await watcher.go(f"http://{agent.listen}/#/instance/sales")
    await watcher.until("document.querySelector('#live').textContent === 'Live'")
    await watcher.until(f"{said} === {json.dumps(begun)}")


async def test_the_ranges_change_the_charts_and_not_only_the_bar(
    open_house: OpenHouse, watcher: Watcher
) -> None:
    async with open_house(trust_loopback=True) as house:
        id, now = InstanceId("sales"), time.time()
        house.supervisor.known[id] = make_view(id, memory_bytes=300 << 20)
        for word, trends in house.supervisor.trends.items():
            for point in range(5):
                trends.note([(id, (100 + point) << 20, point)], now - (4 - point) * trends.step)
            assert word in ("latest", "day", "week", "month")
        await watcher.size(1280, 900)
        await watcher.go(house.url + "/#/instance/sales")
        oldest = (
            "[...document.querySelectorAll('.charts .chart-text')].map((e) => e.textContent)"
            ".filter((t) => t.endsWith(' ago')).map((t) => t.split(' ').slice(0, 2).join(' '))"
        )
        first = f"{oldest}[0]"
        for chip, far in ((1, "1 h"), (2, "11 h"), (3, "2 d"), (1, "1 h")):
            await watcher.click(f".history .chip:nth-child({chip})")
            await watcher.until(f"{first} === '{far}'")
        assert watcher.complaints == []


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


async def test_a_new_instance_takes_an_engine_that_can_run_here(
    listening: Callable[..., RunningAgent], watcher: Watcher
) -> None:
    agent = listening("\n[api]\ntrust_loopback = true\n")
    await agent.start()
    await watcher.go(f"http://{agent.listen}/")
    await watcher.click(".empty .primary")
    await watcher.until("document.activeElement.id === 'new-id'")
    assert await watcher.run("document.querySelector('#new-engine').value") == "web"
    closed = "[...document.querySelectorAll('#new-engine option:disabled')].map((e) => e.value)"
    assert await watcher.run(closed) == ["evolution", "whaticket"]
    assert not await watcher.run("document.querySelector('#new-backend').checkVisibility()")
    await watcher.press("Escape", 27)
    await agent.create("demo", scan="manual")
    await watcher.until(pill("demo", "warn"))
    await watcher.click(".tools-end .primary")
    await watcher.until("document.querySelector('#new-engine').value === 'sandbox'")
    colour = "getComputedStyle(document.querySelector('{}'), '{}').color"
    placeholder = await watcher.run(colour.format("#search", "::placeholder"))
    assert placeholder == await watcher.run(colour.format("#new-id-help", ""))
    await check_manners(watcher, agent)


async def test_a_session_on_a_backend_is_created_from_the_page(
    listening: Callable[..., RunningAgent], watcher: Watcher, standin: StandIn
) -> None:
    standin.add("Shop One", "open")
    agent = listening(
        "\n[api]\ntrust_loopback = true\n" + table(standin, adopt=[]), base=remote_settings()
    )
    await agent.start()
    await watcher.go(f"http://{agent.listen}/")
    await watcher.until("document.querySelector('[data-backend=evo] .pill.good')")
    await watcher.click(".empty .primary")
    await watcher.until("document.activeElement.id === 'new-id'")
    await watcher.type("till")
    await watcher.run(
        "(() => { const e = document.querySelector('#new-engine'); e.value = 'evolution';"
        " e.dispatchEvent(new Event('change')); })()"
    )
    assert await watcher.run("document.querySelector('#new-backend').value") == "evo"
    await watcher.click("#new-remote")
    await watcher.type("Shop One")
    await picture(watcher, "create-on-backend")
    await watcher.click("dialog .primary")
    await watcher.until("location.hash === '#/instance/till'")
    made = await agent.show("till")
    assert (made["backend"], made["remote"]) == ("evo", "Shop One")
    await check_manners(watcher, agent)


async def test_an_incident_has_one_row_and_only_those_it_holds_say_so(
    listening: Callable[..., RunningAgent], watcher: Watcher, eventually: Eventually
) -> None:
    agent = listening(IMPATIENT)
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
