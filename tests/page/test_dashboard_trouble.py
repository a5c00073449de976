"""The dashboard says when something is wrong, in a real browser before a real agent."""

from tests.api.conftest import OpenHouse
from tests.conftest import Eventually
from tests.page.browsing import Listening, check_manners, picture, pill
from tests.page.watcher import Watcher

TRUSTED = "\n[api]\ntrust_loopback = true\n"
# Answers that end after their head, as of an agent that is killed.
BREAKS_OFF = """(() => {
    const ask = window.fetch;
    const cut = () => new ReadableStream({pull: (body) => body.error(new TypeError("cut"))});
    window.__cut = true;
    window.fetch = async (...how) => window.__cut ? new Response(cut()) : ask(...how);
})()"""
STATE = "document.querySelector('.title .pill').textContent"
ROWS = "[...document.querySelectorAll('#{} .attention-row')].map((e) => e.textContent)"
OVERVIEW, INSTANCE = ROWS.format("overview"), ROWS.format("instance")


async def test_a_trouble_is_shown_with_what_to_do_and_goes_with_its_cause(
    listening: Listening, watcher: Watcher, eventually: Eventually
) -> None:
    agent = await listening(TRUSTED)
    await agent.create("sales")
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    await watcher.size(390, 844, phone=True)
    await watcher.go(f"http://{agent.listen}/")
    await watcher.until(pill("sales", "good"))
    await agent.fault("sales", "temp-ban")
    said = "WhatsApp banned the account of sales for a time; the agent connects it again at"
    await watcher.until(f"{OVERVIEW}.some((t) => t.includes('{said}'))")
    row = "[data-trouble=banned]"
    assert not await watcher.run(f"document.querySelector('{row}').checkVisibility()"), "folded"
    await watcher.click(".attention > summary")
    await watcher.click(f"{row} summary")
    await watcher.until(f"document.querySelector('{row} .advice p').checkVisibility()")
    await picture(watcher, "trouble")

    await watcher.click(f"{row} .attention-acts a")
    await watcher.until("location.hash === '#/instance/sales'")
    await watcher.until(f"{INSTANCE}.some((t) => t.includes('{said}'))")
    assert "Wait: a login before" in (await watcher.run(f"{INSTANCE}.join()"))

    # A login makes the ban longer: no button offers one, and an action that logs in asks first.
    await watcher.until(f"{STATE} === 'Banned for a time'")
    assert not await watcher.run("document.querySelector('#instance .primary').checkVisibility()")
    await watcher.click(".actions-panel > summary")
    await watcher.click("[data-do=try-now]")
    await watcher.until("document.querySelector('dialog').open")
    question = await watcher.run("document.querySelector('dialog').innerText")
    assert "banned the account" in question and "each login makes the ban longer" in question
    await picture(watcher, "ban-asks")
    await watcher.press("Escape")
    await watcher.until("!document.querySelector('dialog').open")
    story = "document.querySelector('#instance .story').innerText"
    (agent.state / "sessions/sales/session/faults.json").write_text('{"version": 1, "faults": {}}')
    await agent.do("POST", "/force-reconnection/sales")
    await watcher.until(f"!{INSTANCE}.length")
    await watcher.until(f"{story}.includes('it is over: ')")
    await watcher.run("location.hash = '#/'")
    await watcher.until(f"!{OVERVIEW}.some((t) => t.includes('sales'))")
    assert watcher.loads == 1
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
