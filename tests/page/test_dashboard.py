"""The dashboard in a real browser, before a real agent with real workers."""

import re
from importlib.resources import files

import pytest

from tests.conftest import Eventually
from tests.page.browsing import Listening, check_manners, picture, pill
from tests.page.watcher import Watcher


async def test_create_scan_fault_and_repair_are_seen_live(
    listening: Listening, watcher: Watcher, eventually: Eventually
) -> None:
    agent = await listening("\n[api]\ntrust_loopback = true\n")
    await watcher.go(f"http://{agent.listen}/")
    await watcher.until("document.querySelector('#live').textContent === 'Live'")
    await watcher.until("document.querySelector('.empty-title').textContent === 'No instance yet'")

    await watcher.click(".empty .primary")
    await watcher.until("document.activeElement.id === 'new-id'")
    await watcher.type("s" * 60)
    await watcher.run("document.querySelector('dialog details').open = true")
    await watcher.choose("#new-engine", "sandbox")
    await watcher.choose("#setting-scan", "manual")
    await watcher.choose("#setting-messages_per_minute", "60")
    await watcher.click("dialog .primary")
    wrong = "document.querySelector('.wrong:focus')"
    await watcher.until(f"{wrong}.textContent.includes('1 to 48 of a-z')")
    assert await watcher.run(f"{wrong}.getBoundingClientRect().bottom < innerHeight"), "seen"
    await watcher.choose("#new-id", "sales")
    await watcher.click("dialog .primary")

    await watcher.until("location.hash === '#/instance/sales'")
    await watcher.until("document.querySelector('.qr img').naturalWidth > 100")
    await picture(watcher, "qr")
    await watcher.click("[data-do=scan]")
    await watcher.until("document.querySelector('.title .pill').textContent === 'Connected'")
    await watcher.until("document.querySelector('.panel.qr').hidden")

    await watcher.run("location.hash = '#/'")
    await watcher.until(pill("sales", "good"))
    first = await agent.pid("sales")
    await watcher.run(
        "window.seen = []; new MutationObserver(() => window.seen.push("
        "document.querySelector('[data-id=sales] .pill').textContent)).observe("
        "document.querySelector('[data-id=sales]'), {subtree: true, childList: true})"
    )
    await agent.fault("sales", "drop", 600)  # until it is seen
    await agent.fault("sales", "crash")

    async def another_worker() -> bool:
        return await agent.pid("sales") not in (0, first)

    await eventually(another_worker)
    await watcher.until("window.seen.some((word) => word !== 'Connected')")
    await agent.fault("sales", "clear")
    await agent.do("POST", "/force-reconnection/sales")  # whatever its circuit or a look says
    await watcher.until(pill("sales", "good"))
    told = await watcher.run("document.querySelector('.story').innerText")
    assert "exit" in told or "crash" in told or "ended" in told, told
    assert watcher.loads == 1, "all of it was seen without loading the page again"
    await check_manners(watcher, agent)


async def test_an_agents_restart_is_bridged_and_nothing_is_missed(
    listening: Listening, watcher: Watcher
) -> None:
    agent = await listening("\n[api]\ntrust_loopback = true\n")
    await agent.create("sales")
    await watcher.go(f"http://{agent.listen}/")
    await watcher.until(pill("sales", "good"))
    await agent.kill()
    await watcher.until("!document.querySelector('#banner').hidden")
    await watcher.until("document.querySelector('#live').textContent === 'Not live'")
    await picture(watcher, "not-live")
    pale = "getComputedStyle(document.querySelector('main')).filter"
    assert await watcher.run(pale) == "grayscale(1)", "on each view"
    await agent.start()
    await agent.create("meanwhile")
    await watcher.until("document.querySelector('#banner').hidden")
    await watcher.until("document.querySelector('#live').textContent === 'Live'")
    await watcher.until(pill("meanwhile", "good"))

    await watcher.choose(".panel-head select", "")
    wanted = [one["cursor"] for one in (await agent.do("GET", "/api/events?limit=1000"))["events"]]
    shown = "[...document.querySelectorAll('#overview .story-entry')].map((e) => +e.dataset.cursor)"
    await watcher.until(f"{shown}.length >= {len(wanted)}")
    found = await watcher.run(shown)
    assert found == sorted(set(found), reverse=True), "in order, and each once"
    assert set(wanted) <= set(found) and watcher.loads == 1
    await check_manners(watcher, agent)


async def test_a_key_lets_in_and_decides_what_can_be_done(
    listening: Listening, watcher: Watcher
) -> None:
    agent = await listening()
    await agent.create("sales")
    await agent.create("other")
    keys = {
        scope: (await agent.do("POST", "/api/keys", {"name": "x", "scopes": [scope]}))["token"]
        for scope in ("read", "instance:sales")
    }
    await watcher.go(f"http://{agent.listen}/")
    await watcher.until("!document.querySelector('#entrance').hidden")
    await picture(watcher, "entrance")
    await watcher.until("document.activeElement.id === 'entrance-key'")
    for wrong in ("nonsense", "wak_aaaaaaaa_" + "b" * 43):
        await watcher.run("document.querySelector('#entrance-wrong').textContent = ''")
        await watcher.run("document.querySelector('#entrance-key').value = ''")
        await watcher.enter(wrong)
        await watcher.until("document.querySelector('#entrance-wrong').textContent !== ''")

    await watcher.enter(keys["read"])
    await watcher.until(pill("sales", "good"))
    await watcher.until("document.querySelector('#live').textContent === 'Live'")
    assert await watcher.run("document.querySelector('.tools-end .primary').hidden")
    await watcher.run("location.hash = '#/instance/sales'")
    await watcher.until("document.querySelector('#instance .facts').children.length > 5")
    assert not await watcher.run("document.querySelector('[data-do=delete]').checkVisibility()")

    await watcher.click("#forget")
    await watcher.until("!document.querySelector('#entrance').hidden")
    assert await watcher.run("sessionStorage.length") == 0
    await watcher.enter(keys["instance:sales"])
    await watcher.until(pill("sales", "good"))
    await watcher.until("document.querySelector('#live').textContent === 'Live'")
    assert await watcher.run("document.querySelector('[data-id=other]')") is None
    await watcher.run("location.hash = '#/instance/other'")
    await watcher.until("document.querySelector('#instance').innerText.includes('may not see a')")
    await watcher.run("location.hash = '#/instance/sales'")
    await watcher.until("document.querySelector('[data-do=delete]').checkVisibility()")
    stored = await watcher.run("[document.cookie, JSON.stringify(Object.entries(localStorage))]")
    assert "wak_" not in "".join(stored)
    await check_manners(watcher, agent)


async def test_harsh_actions_ask_first_and_the_keyboard_is_enough(
    listening: Listening, watcher: Watcher, eventually: Eventually
) -> None:
    agent = await listening("\n[api]\ntrust_loopback = true\n")
    await agent.create("sales")
    await watcher.go(f"http://{agent.listen}/#/instance/sales")
    await watcher.until("document.querySelector('.title .pill').textContent === 'Connected'")

    await watcher.run("document.querySelector('[data-do=log-out]').focus()")
    await watcher.press("Enter")
    await watcher.until("document.querySelector('dialog').open")
    assert await watcher.run("document.activeElement.textContent") == "Cancel"
    await watcher.press("Escape")
    await watcher.until("!document.querySelector('dialog').open")
    assert await watcher.run("document.activeElement.dataset.do") == "log-out"
    assert await agent.status("sales") == "CONNECTED"

    await watcher.click("[data-do=delete]")
    await watcher.until("document.activeElement.id === 'dialog-typed'")
    assert await watcher.run("document.querySelector('dialog .danger').disabled")
    await watcher.type("sale")
    assert await watcher.run("document.querySelector('dialog .danger').disabled")
    await watcher.type("s")
    await picture(watcher, "dialog")
    await watcher.press("Enter")
    await watcher.until("location.hash === '#/'")
    await watcher.until("!document.querySelector('[data-id=sales]')")
    assert (await agent.ask("GET", "/api/instance/sales"))[0] == 404
    await check_manners(watcher, agent)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", [":root {", ':root[data-theme="dark"] {'])
def test_every_text_stands_out_enough(theme: str) -> None:
    """4.5 to 1, as WCAG asks for."""
    css = (files("agent.page") / "files" / "dashboard.css").read_text()
    block = css.partition(theme)[2].partition("}")[0]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    pairs = [(one, ground) for one in ("text", "soft", "link") for ground in ("ground", "card")]
    pairs += [(tone, f"{tone}-ground") for tone in ("good", "warn", "bad", "busy", "off")]
    pairs += [(tone, "card") for tone in ("good", "warn", "bad", "busy", "off")]
    pairs += [("accent-text", "accent"), ("ground", "text")]
    for text, ground in pairs:
        dark, light = sorted((luminance(colours[text]), luminance(colours[ground])))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)
