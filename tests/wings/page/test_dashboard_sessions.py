"""The dashboard where it is worked with: the action that helps, many sessions, a session's past."""

import json
from collections.abc import Callable

from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent
from tests.wings.page.browsing import check_manners, listening, make_agent, picture, pill, watcher
from tests.wings.page.watcher import Watcher

__all__ = ["listening", "make_agent", "watcher"]

TRUSTED = "\n[api]\ntrust_loopback = true\n"
LIVE = "document.querySelector('#live').textContent === 'Live'"
STATUSES = "[...document.querySelectorAll('tbody tr .pill')].map((e) => e.textContent)"


def card(id: str, rest: str) -> str:
    return f"[data-id={id}] {rest}"


async def opened(agent: RunningAgent, watcher: Watcher) -> None:
    await watcher.go(f"http://{agent.listen}/")
    await watcher.until(LIVE)


async def test_the_action_that_helps_now_stands_on_the_card(
    listening: Callable[..., RunningAgent], watcher: Watcher
) -> None:
    agent = listening(TRUSTED)
    await agent.start()
    await agent.create("scans", scan="manual")
    await agent.create("stopped")
    await agent.create("disabled")
    await agent.do("POST", "/api/instance/stopped/stop", {})
    await agent.do("POST", "/api/instance/disabled/disable", {})
    await watcher.size(1280, 860)
    await opened(agent, watcher)
    helps = "document.querySelector('[data-id={}] [data-helps]').dataset.helps === '{}'"
    await watcher.until(helps.format("stopped", "start"))
    await watcher.until(helps.format("disabled", "enable"))
    await watcher.click(card("stopped", "[data-helps]"))
    await watcher.until(pill("stopped", "good"))
    assert await watcher.run("location.hash") in ("", "#/"), "the button is not the card's link"
    assert not await watcher.run(
        "document.querySelector('[data-id=stopped] [data-helps]')?.checkVisibility() ?? false"
    ), "where all is well no action is offered"
    await watcher.click(card("scans", "a.button"))
    await watcher.until("document.querySelector('.qr img').naturalWidth > 100")
    top = "document.querySelector('.actions-panel').getBoundingClientRect().top"
    assert await watcher.run(top) < 400, "actions are near the top, also beside a code"
    await check_manners(watcher, agent)


async def test_the_menu_of_a_card_is_used_by_keyboard(
    listening: Callable[..., RunningAgent], watcher: Watcher
) -> None:
    agent = listening(TRUSTED)
    await agent.start()
    await agent.create("sales")
    await opened(agent, watcher)
    await watcher.until(pill("sales", "good"))
    await watcher.run("document.querySelector('[data-id=sales] .dots').focus()")
    await watcher.press("Enter", 13)
    await watcher.until("document.activeElement.dataset.do === 'stop'")
    await watcher.press("ArrowDown", 40)
    assert await watcher.run("document.activeElement.dataset.do") == "restart"
    await watcher.press("Escape", 27)
    assert not await watcher.run("document.querySelector('.menu')")
    assert await watcher.run("document.activeElement.className.includes('dots')")
    await watcher.press("Enter", 13)
    await watcher.until("document.activeElement.dataset.do === 'stop'")
    await watcher.press("Enter", 13)
    await watcher.until("document.querySelector('[data-id=sales] .pill').textContent === 'Stopped'")


async def test_many_sessions_are_sorted_filtered_and_stopped_in_a_table(
    listening: Callable[..., RunningAgent], watcher: Watcher
) -> None:
    agent = listening(TRUSTED)
    await agent.start()
    for number in range(4):
        await agent.create(f"line-{number}")
    await agent.create("asks", scan="manual")
    await opened(agent, watcher)
    await watcher.click("[data-do=view]")
    await watcher.until("document.querySelectorAll('tbody tr').length === 5")
    await watcher.until(f"{STATUSES}.filter((word) => word === 'Connected').length === 4")
    ids = "[...document.querySelectorAll('tbody tr')].map((e) => e.dataset.id)"
    await watcher.until(f"{ids}[0] === 'asks'")  # what waits for a person comes first
    await watcher.click("th:nth-child(2) .sort")
    wanted = ["asks", "line-0", "line-1", "line-2", "line-3"]
    assert await watcher.run(ids) == wanted
    await watcher.click("th:nth-child(2) .sort")
    assert await watcher.run(ids) == wanted[::-1]
    assert await watcher.run("document.querySelector('th:nth-child(2)').ariaSort") == "descending"

    await watcher.click("tr[data-id=line-0] .pick input")
    await watcher.click("tr[data-id=line-3] .pick input")
    await watcher.click("tr[data-id=asks] .pick input")
    await watcher.click("#search")
    await watcher.type("line-")
    await watcher.until("document.querySelectorAll('tbody tr').length === 4")
    await watcher.until("document.querySelector('.bulk strong').textContent === '2 chosen'")
    await picture(watcher, "table")
    await watcher.click("[data-bulk=stop]")
    await watcher.until("document.querySelector('dialog').innerText.includes('line-0, line-3')")
    await watcher.click("dialog .danger")
    await watcher.until(f"{STATUSES}.filter((word) => word === 'Stopped').length === 2")
    assert (await agent.show("asks"))["should_run"], "a session that is not shown is not acted on"
    assert (await agent.show("line-1"))["should_run"]
    await check_manners(watcher, agent)


async def test_the_past_of_a_session_has_axes_ranges_and_a_bar_of_when_it_served(
    listening: Callable[..., RunningAgent], watcher: Watcher, eventually: Eventually
) -> None:
    agent = listening(TRUSTED)
    await agent.start()
    await agent.create("sales", messages_per_minute=60)
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    await agent.do("POST", "/api/instance/sales/stop", {})
    await eventually(lambda: agent.status("sales"), "DISCONNECTED")
    await agent.do("POST", "/api/instance/sales/start", {})
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    await watcher.go(f"http://{agent.listen}/#/instance/sales")
    await watcher.until("document.querySelectorAll('.uptime rect').length >= 3")
    kinds = "[...document.querySelectorAll('.uptime rect')].map((e) => e.className.baseVal)"
    assert {"uptime-good", "uptime-off"} <= set(await watcher.run(kinds))
    said = await watcher.run("document.querySelector('.uptime').getAttribute('aria-label')")
    assert "% connected, of " in said, said
    assert not said.startswith("100"), "the stop counts"
    await watcher.click(".history .chip:nth-child(2)")
    await watcher.until("document.querySelector('.uptime-axis span').textContent === '7 d ago'")
    chart = "document.querySelector('.charts > div:last-child')"
    await watcher.until(f"{chart}.querySelectorAll('.chart-text').length === 6")
    await watcher.run(
        f"(() => {{ const svg = {chart}.querySelector('svg'), box = svg.getBoundingClientRect();"
        " svg.dispatchEvent(new PointerEvent('pointermove',"
        " {clientX: box.right - 20, clientY: box.top + 20, bubbles: true})); })()"
    )
    assert ":" in await watcher.run(f"{chart}.querySelector('.chart-read').textContent")


async def test_the_page_shows_the_workers_lines_and_the_story_their_cause(
    listening: Callable[..., RunningAgent], watcher: Watcher, eventually: Eventually
) -> None:
    agent = listening(TRUSTED)
    await agent.start()
    await agent.create("sales")
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    await agent.do("POST", "/api/instance/sales/sandbox/fault", {"fault": "conflict", "for": 0.2})

    async def lost() -> bool:
        """It may be back between two looks at its status."""
        return "→ RECONNECTING" in str(await agent.story("sales"))

    await eventually(lost)
    await agent.do("POST", "/force-reconnection/sales", {})
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    await watcher.go(f"http://{agent.listen}/#/instance/sales")
    story = "document.querySelector('#instance .story').innerText"
    await watcher.until(f"{story}.includes('took the session over')")
    await watcher.click("[data-do=worker-lines]")
    await watcher.until("document.querySelector('.lines').textContent.includes('CONNECTED')")
    command = await watcher.run("document.querySelector('#evidence .command').textContent")
    assert command.endswith("sales/worker.log")
    offered = (
        "[...document.querySelectorAll('button')].filter((e) => e.innerText.includes('last lines'))"
    )
    assert await watcher.run(f"{offered}.length") == 1
    await check_manners(watcher, agent)


async def test_settings_are_changed_and_a_message_is_tried_on_the_page(
    listening: Callable[..., RunningAgent], watcher: Watcher, eventually: Eventually
) -> None:
    agent = listening(TRUSTED)
    await agent.start()
    await agent.create("sales")
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    await watcher.go(f"http://{agent.listen}/#/instance/sales")
    await watcher.until("document.querySelector('#setting-messages_per_minute')")
    await watcher.click("#settings > summary")
    row = "document.querySelector('[data-setting={}]').innerText"
    assert "messages that come in" in await watcher.run(row.format("messages_per_minute"))
    for name, default in (("qr_codes", "6"), ("memory_limit", "not set")):
        told = f"document.querySelector('#setting-{name}').placeholder"
        assert await watcher.run(told) == default

    async def write(name: str, text: str) -> None:
        await watcher.run(
            f"(() => {{ const e = document.querySelector('#setting-{name}');"
            f" e.value = {json.dumps(text)}; e.dispatchEvent(new Event('input')); }})()"
        )

    save, wrong = "#settings .primary", "document.querySelector('#settings .wrong').innerText"
    kept = (await agent.do("GET", "/api/instance/sales/details"))["settings"]
    assert await watcher.run(f"document.querySelector('{save}').disabled")
    await write("messages_per_minute", "many")
    await watcher.click(save)
    await watcher.until(f"{wrong}.includes('messages_per_minute')")
    assert (await agent.do("GET", "/api/instance/sales/details"))["settings"] == kept
    await write("messages_per_minute", "3")
    await write("scan", "manual")
    await write("login_seconds", "")
    await picture(watcher, "settings")
    await watcher.click(save)
    await watcher.until(f"document.querySelector('{save}').disabled")
    wanted = {**kept, "scan": "manual", "messages_per_minute": 3}
    assert (await agent.do("GET", "/api/instance/sales/details"))["settings"] == wanted
    await watcher.until(f"{row.format('messages_per_minute')}.includes('default: 6')")
    assert await watcher.run(wrong) == ""
    assert not await watcher.run("document.querySelector('#settings').innerText.includes('{')")

    before = (await agent.do("GET", "/api/instance/sales/details"))["messages"]["out"]
    await watcher.click("#trial-to")
    await watcher.type("+4915112345678")
    await watcher.click(".fields button:not([type=button]):not(.primary)")
    await watcher.until("document.querySelector('.toasts').innerText.includes('the message is')")

    async def sent() -> bool:
        shown = await agent.do("GET", "/api/instance/sales/details")
        return bool(shown["messages"]["out"] > before)

    await eventually(sent)


async def test_on_a_phone_nothing_scrolls_sideways_and_links_are_large_enough(
    listening: Callable[..., RunningAgent], watcher: Watcher
) -> None:
    agent = listening(TRUSTED)
    await agent.start()
    await agent.create("sales", scan="manual")
    await watcher.size(390, 844, phone=True)
    await opened(agent, watcher)
    wide = "document.documentElement.scrollWidth"
    await watcher.until(pill("sales", "warn"))
    assert await watcher.run(wide) <= 390
    await watcher.click(card("sales", "a.button"))
    await watcher.until("document.querySelector('.qr img').naturalWidth > 100")
    assert await watcher.run(wide) <= 390
    small = (
        "[...document.querySelectorAll('main a:not(.in-text), main button')]"
        ".filter((e) => e.checkVisibility()"
        " && e.getBoundingClientRect().height < 34).map((e) => e.outerHTML.slice(0, 90))"
    )
    assert await watcher.run(small) == []
    assert await watcher.run(
        "document.querySelector('.actions-panel').getBoundingClientRect().top"
        " < document.querySelector('#instance .facts').getBoundingClientRect().top"
    ), "the actions stand right below the code"
    await picture(watcher, "phone-code")
