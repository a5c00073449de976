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
